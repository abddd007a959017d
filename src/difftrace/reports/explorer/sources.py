"""Entries from files: the report of a run with the baselines and received runs it names, or baselines alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from difftrace.core.baseline import load as load_baseline
from difftrace.core.checked import Checked, FirstDivergence
from difftrace.core.errors import FormatError, PathError
from difftrace.core.inside import inside
from difftrace.core.recording import Baseline, TestId
from difftrace.core.run_report import Report
from difftrace.core.suspects import Suspect
from difftrace.reports.explorer.entry import Entry, Parting, Status, Verdict
from difftrace.reports.verdict import measured_text, outcome_text

_NEITHER: Final = ("skipped", "not recorded (test skipped)")
_WHERE: Final = ("device", "torch", "platform_key")


def report_facts(report: Report) -> Iterator[tuple[str, str]]:
    """Yield what is said of the run as a whole: what is missing of it, what it was asked, where it ran."""
    for reason in report.incomplete_because:
        yield "Incomplete:", reason
    for reason in report.partial_because:
        yield "Not every test:", reason
    for name, values in (("Mode", (run.mode for run in report.runs)), ("Policy", (run.policy for run in report.runs))):
        yield name, ", ".join(sorted(set(values)))
    for environment in report.environments:
        yield "Ran on", ", ".join(_said(name, environment[name]) for name in _WHERE if environment.get(name))


def report_entries(report: Report, root: Path | None, results: Path | None) -> Iterator[Entry]:
    """Yield the checks of `report`, each with its files as far as they can be read.

    Args:
        report: what is said of them.
        root: the folder that paths of baselines start from; None where it is not known.
        results: likewise of received runs.
    """
    for check in report.checks:
        yield _entry(check, root, results)


def baseline_entry(file: Path) -> Entry:
    """Return a baseline by itself.

    Raises:
        FormatError: it cannot be read.
    """
    baseline = load_baseline(file)
    name = file.name if baseline.test is None else _name(baseline.test)
    facts = (("File", str(file)), ("Digest", baseline.digest))
    return Entry(name, "recorded", "recorded", facts=facts, golden=baseline)


def unreadable_entry(file: Path, error: FormatError) -> Entry:
    """Return what is said of a baseline that cannot be read."""
    return Entry(file.name, "failed", "unreadable", "INVALID", problems=(str(error),), facts=(("File", str(file)),))


def _entry(check: Checked, root: Path | None, results: Path | None) -> Entry:
    problems: list[str] = []
    golden = observed = None
    if check.baseline is not None and check.baseline.digest is not None:
        golden = _read(root, check.baseline.path, "baseline", check.baseline.digest, problems)
    if check.received is not None:
        observed = _read(results, check.received.path, "received run", check.received.digest, problems)
    return Entry(
        test=check.title,
        status=_status(check),
        outcome=check.status,
        divergence_class=check.divergence_class,
        parting=None if check.first_divergence is None else _parting(check.first_divergence),
        verdict=_verdict(check),
        facts=tuple(_facts(check)),
        problems=tuple(problems),
        golden=golden,
        observed=observed,
    )


def _read(folder: Path | None, name: str, what: str, digest: str, problems: list[str]) -> Baseline | None:
    """Return the recording in the file `name` of `folder`; None where there is none, which is added to `problems`."""
    if folder is None:
        problems.append(f"The {what} is not shown: it is not known which folder {name} is in; give it with --rootdir.")
        return None
    try:
        path = inside(folder, name)
        if not path.exists():
            problems.append(f"The {what} is not shown: there is no file {path}.")
            return None
        found = load_baseline(path)
    except (FormatError, PathError) as error:
        problems.append(f"The {what} is not shown: {error}.")
        return None
    if found.digest != digest:
        problems.append(f"The {what} was written anew since the report: {path} is shown as it is now.")
    return found


def _status(check: Checked) -> Status:
    if check.status in _NEITHER:
        return "other"
    return "passed" if check.good else "failed"


def _verdict(check: Checked) -> Verdict:
    return Verdict(
        reason=check.reason,
        measured=tuple(map(measured_text, check.measured)),
        budget=check.budget,
        came=None if check.outcome is None else outcome_text(check.outcome),
        unknown=check.cannot_tell,
        suspects=tuple(Suspect(one.field, one.golden, one.observed) for one in check.suspects),
        text=tuple((check.text or "").splitlines()),
    )


def _parting(found: FirstDivergence) -> Parting:
    texts = [
        piece if token is None or piece is not None else f"token {token}"
        for token, piece in ((found.golden, found.golden_piece), (found.observed, found.observed_piece))
    ]
    return Parting(found.kind, found.sequence, found.step, found.position, *texts)


def _facts(check: Checked) -> Iterator[tuple[str, str]]:
    yield "Policy", check.policy
    if check.judgement is not None:
        yield "Judgement", check.judgement
    yield "Strategy", check.strategy
    yield "Checked at", f"{check.file}:{check.line}"
    if check.baseline is not None:
        yield "Baseline", check.baseline.path if check.baseline.shared else f"{check.baseline.path} (of this platform)"
        if check.baseline.digest is not None:
            yield "Digest", check.baseline.digest
    if check.received is not None:
        yield "Received", check.received.path


def _said(name: str, value: object) -> str:
    return f"torch {value}" if name == "torch" else str(value)


def _name(test: TestId) -> str:
    name = f"{test.module}::{test.id}"
    return name if test.name is None else f"{name}, check {test.name}"
