"""Received runs in place of their baselines: what may be promoted, checked before anything is written.

Where a file goes follows from the collected test alone; what a received file or a report says of paths has to agree
with that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from difftrace.core.atomic import write_all_atomically
from difftrace.core.baseline import Baseline, parse
from difftrace.core.baseline_names import RECEIVED, baseline_path
from difftrace.core.checked import Checked, ReceivedFile
from difftrace.core.errors import DiffTraceError, FormatError, NewerFormatError, ReportError
from difftrace.core.file_format import read_file
from difftrace.core.inside import inside
from difftrace.core.limits import MAX_BASELINE_BYTES
from difftrace.core.report import Report
from difftrace.core.run_rules import non_finite_step
from difftrace.core.test_id import TestId
from difftrace.core.text import printable

_ACCEPTABLE: Final = ("diverged", "without baseline", "unreadable")
_RAN_ONCE: Final = (
    "it has no baseline and ran once, which does not show that it reproduces; pytest --difftrace-record runs it twice, "
    "and --new accepts it as it is"
)


@dataclass(frozen=True)
class Proposal:
    """A received run that may take the place of its baseline.

    Attributes:
        check: the check that failed.
        target: the file to write.
        data: what is written.
        received: the same, read.
        current: the baseline that the check was compared with; None where there was none that could be read.
    """

    check: Checked
    target: Path
    data: bytes
    received: Baseline
    current: Baseline | None


@dataclass(frozen=True)
class Refusal:
    """A check whose run may not be promoted, and why."""

    check: Checked
    reason: str


@dataclass(frozen=True)
class Plan:
    """What accepting a report's received runs comes to.

    Attributes:
        proposals: what may be promoted.
        refusals: what may not, because something is not as the report says; nothing is promoted then.
        left: failed checks that there is nothing to promote for, those whose run was promoted before among them.
    """

    proposals: tuple[Proposal, ...]
    refusals: tuple[Refusal, ...]
    left: tuple[Refusal, ...]


def plan(report: Report, results: Path, rootdir: Path, wanted: Callable[[Checked], bool], *, new: bool) -> Plan:
    """Check every received run of the failed checks that are `wanted`.

    Those without baseline are left unless `new`: such a run was held against nothing, whereas a recording runs a test
    twice and writes only what came out the same.
    """
    proposals, refusals, left = [], [], []
    for check in report.checks:
        if check.good or check.status == "skipped" or not wanted(check):
            continue
        obstacle = _nothing_to_promote(check)
        if obstacle is not None:
            left.append(Refusal(check, obstacle))
            continue
        try:
            proposal = _proposal(report, check, results, rootdir)
        except DiffTraceError as error:
            refusals.append(Refusal(check, printable(str(error))))
            continue
        if proposal is None:
            left.append(Refusal(check, "accepted already: its baseline is this run"))
        elif non_finite_step(proposal.received) is not None:
            left.append(Refusal(check, "its model returned NaN or infinite logits, which make no golden run"))
        elif check.status == "without baseline" and not new:
            left.append(Refusal(check, _RAN_ONCE))
        else:
            proposals.append(proposal)
    return Plan(tuple(proposals), tuple(refusals), tuple(left))


def promote(proposals: Sequence[Proposal]) -> None:
    """Write all of them, or none.

    Raises:
        WriteError: they could not be written.
    """
    write_all_atomically({one.target: one.data for one in proposals})


def _nothing_to_promote(check: Checked) -> str | None:
    if check.divergence_class == "RUN_TO_RUN":
        return "it does not repeat itself, so that the next run would be another one"
    if check.status not in _ACCEPTABLE:
        return check.status
    return "no received run" if check.received is None else None


def _proposal(report: Report, check: Checked, results: Path, rootdir: Path) -> Proposal | None:
    """Return what may be promoted for `check`; None where the file to write holds that already.

    Raises:
        DiffTraceError: something is not as the report says.
    """
    seen = next((test for test in report.tests if test.nodeid == check.nodeid), None)
    if seen is None or (seen.module, seen.id) != (check.module, check.id):
        raise ReportError("its test is not among those that the report says were collected")
    module = inside(rootdir, check.module)
    if not module.is_file():
        raise ReportError(f"{check.module} does not exist")
    test = TestId(PurePosixPath(check.module).name, check.id, check.name)
    assert check.received is not None
    data, received = _received(check.received, results, test)
    environment = {} if check.environment is None else report.environments[check.environment]
    own = baseline_path(module, test, str(environment.get("platform_key", "cpu")))
    places = {path.relative_to(rootdir).as_posix(): path for path in (baseline_path(module, test), own)}
    if check.target not in places or check.baseline is None or check.baseline.path not in places:
        raise ReportError(f"the report has its baseline in {check.target}, which is not where this test's lies")
    target = inside(rootdir, check.target)
    source = inside(rootdir, check.baseline.path)
    # Accepting part of a report, or being interrupted, must not keep the rest of it from being accepted.
    current, digest = _current(target)
    if digest == check.received.sha256:
        return None
    if source != target:
        current, digest = _current(source)
    if digest != check.baseline.sha256 or (target != source and target.exists()):
        raise ReportError("its baseline is not the one any more that the run was compared with; run the tests again")
    return Proposal(check, target, data, received, current)


def _received(named: ReceivedFile, results: Path, test: TestId) -> tuple[bytes, Baseline]:
    if named.path.partition("/")[0] != RECEIVED:
        raise ReportError(f"{named.path} is not among the received runs")
    data, source = read_file(inside(results, named.path), MAX_BASELINE_BYTES)
    if _digest(data) != named.sha256:
        raise ReportError(f"{named.path} is not the file that the run wrote")
    baseline = parse(data, source)
    if baseline.test != test:
        raise ReportError(f"{named.path} belongs to another test")
    if baseline.digest != named.digest:
        raise ReportError(f"{named.path} holds other decisions than the report says")
    return data, baseline


def _current(source: Path) -> tuple[Baseline | None, str | None]:
    """Return the baseline in `source`, None where it cannot be read, and the digest of its bytes, None without any.

    Raises:
        NewerFormatError: a newer version of this package wrote it, so that it is not to be overwritten.
    """
    if not source.exists():
        return None, None
    data, name = read_file(source, MAX_BASELINE_BYTES)
    try:
        return parse(data, name), _digest(data)
    except NewerFormatError as error:
        raise NewerFormatError(f"{error}; until then its baseline is not overwritten") from error
    except FormatError:
        return None, _digest(data)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
