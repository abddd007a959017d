"""What a run of pytest comes to: the action's result and what it tells the workflow."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

from difftrace.core.checked import Checked, Status
from difftrace.core.report import Report

Result = Literal["pass", "diverged", "no-baseline", "error"]

_DIVERGED: Final[tuple[Status, ...]] = ("diverged", "not reproducible")
_PASSED, _FAILED = 0, 1
_ENDINGS: Final = {
    2: "the run was interrupted, or a test file could not be imported",
    3: "pytest failed by itself, or a test ended its process with status 3",
    4: "pytest refused its command line or settings",
    5: "no tests were collected: look at the inputs paths and pytest-args",
}
# What the report says where -x or --maxfail ended the run: the failures before that are what was asked for.
_STOPPED: Final = re.compile(r"\d+ tests? did not run to the end \(stopping after \d+ failures?\)")


@dataclass(frozen=True)
class Outcome:
    """What became of the run.

    Attributes:
        result: "pass"; "diverged", where runs differ from their baselines or from themselves and nothing else is
            wrong; "no-baseline", where baselines are missing and nothing else is; "error" for all else.
        problem: why it is an error, as one sentence that no test's own failure says.
        passed: how many checks passed.
        diverged: how many diverged.
        first: the first check that diverged.
        platform_key: what the platform is called in the report, empty where no check says.
        failed_apart: the tests that failed although no check of theirs did.
    """

    result: Result
    problem: str | None
    passed: int
    diverged: int
    first: Checked | None
    platform_key: str
    failed_apart: tuple[str, ...] = ()


def judge(status: int, report: Report | None, failed: Sequence[str] = (), said: str | None = None) -> Outcome:
    """Return what the exit status of pytest and its report, None for none, come to.

    `failed` names the tests that failed, which matters where there is no report because no check ran. `said` is why
    pytest ran no tests, where it says it itself.
    """
    checks = () if report is None else report.checks
    apart = [check for check in checks if check.status in _DIVERGED]
    failed_apart = sorted(_unexplained(report) if checks else set(failed))
    result, problem = _result(status, report, len(apart), failed_apart)
    if said is not None and status not in (_PASSED, _FAILED):
        problem = said
    return Outcome(
        result,
        problem,
        passed=sum(check.good for check in checks),
        diverged=len(apart),
        first=apart[0] if apart else None,
        platform_key="" if report is None else _platform_key(report),
        failed_apart=tuple(failed_apart),
    )


def first_divergence(check: Checked | None) -> str:
    """Return the output of that name: one line of JSON, empty for None."""
    if check is None:
        return ""
    document = {
        "nodeid": check.nodeid,
        "name": check.name,
        "file": check.file,
        "line": check.line,
        "class": check.divergence_class,
        "reason": check.reason,
        "outcome": None if check.outcome is None else asdict(check.outcome),
        "divergence": None if check.first_divergence is None else asdict(check.first_divergence),
        "baseline": None if check.baseline is None else check.baseline.path,
    }
    return json.dumps(document, sort_keys=True)


def exit_status(result: Result, *, fail_on_divergence: bool) -> int:
    """Return the action's exit status: 0 passed, 1 diverged or without baseline, 2 could not tell."""
    tolerated = result == "pass" or (result == "diverged" and not fail_on_divergence)
    return 0 if tolerated else 2 if result == "error" else 1


def _result(status: int, report: Report | None, apart: int, failed_apart: Sequence[str]) -> tuple[Result, str | None]:
    if status not in (_PASSED, _FAILED):
        return "error", _ending(status)
    if report is None or not report.checks:
        if failed_apart:
            return "error", f"no check ran: {_tests(failed_apart)} failed before one; see the log"
        return "error", "no check ran, so nothing was verified or recorded: look at the inputs paths and pytest-args"
    if not all(map(_STOPPED.fullmatch, report.incomplete_because)):
        return "error", f"the run is incomplete: {'; '.join(report.incomplete_because)}"
    bad = [check for check in report.checks if not check.good and check.status != "skipped"]
    others = [check for check in bad if check.status not in (*_DIVERGED, "without baseline")]
    if others:
        return "error", f"{len(others)} check{'s' if len(others) > 1 else ''} could not be made: {others[0].status}"
    if status == _FAILED and failed_apart:
        return "error", f"{_tests(failed_apart)} failed although no check did"
    if apart:
        return "diverged", None
    if bad:
        return "no-baseline", None
    if status == _FAILED:
        return "error", "pytest failed although no test did: see its messages"
    return "pass", None


def _ending(status: int) -> str:
    if status >= 0:
        return _ENDINGS.get(status, f"a test ended the process of pytest with status {status}")
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"pytest was killed by {name}{' (out of memory?)' if name == 'SIGKILL' else ''} before it had finished"


def _tests(nodeids: Sequence[str]) -> str:
    return f"{len(nodeids)} tests, such as {nodeids[0]}," if len(nodeids) > 1 else f"the test {nodeids[0]}"


def _unexplained(report: Report | None) -> set[str]:
    """Return the tests that failed although no check of theirs did."""
    if report is None:
        return set()
    bad = {check.nodeid for check in report.checks if not check.good and check.status != "skipped"}
    return {test.nodeid for test in report.tests if test.outcome in ("failed", "error")} - bad


def _platform_key(report: Report) -> str:
    keys: dict[str, None] = {}
    for environment in report.environments:
        key = _text(environment, "platform_key")
        if key:
            keys[key] = None
    return ",".join(keys)


def _text(environment: Mapping[str, object], name: str) -> str:
    value = environment.get(name)
    return value if isinstance(value, str) else ""
