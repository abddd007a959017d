"""Recording: each test runs twice, and only what came out the same both times is written.

This module is registered as a plugin in record mode alone.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import replace
from functools import partial
from inspect import signature
from types import MappingProxyType
from typing import Any

import pytest

from difftrace.core.baseline import save
from difftrace.core.checked import Status
from difftrace.core.classes import Finding
from difftrace.core.classification import Classification, classify, divergence_of
from difftrace.core.errors import DiffTraceError
from difftrace.core.run_rules import non_finite_step, run_to_run_finding
from difftrace.core.side_logits import put_beside, remove_beside
from difftrace.core.text import printable
from difftrace.reports.verdict import reason_lines
from pytest_difftrace import messages, ranks
from pytest_difftrace.checks import Check, loses_budget, loses_probes, to_record, verdict_on, written
from pytest_difftrace.entries import Parting, entry_of
from pytest_difftrace.junit import note_properties
from pytest_difftrace.options import Settings
from pytest_difftrace.repetition import REPETITION, Repetition, can_be_repeated
from pytest_difftrace.reporting import attach
from pytest_difftrace.session import SESSION, Entry, notes

_REPEATABLE = "A recorded test runs twice: whatever it changes outside its fixtures it must put back or allow for."


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a test that may record: once where its baselines hold, else twice, reporting the last run."""
    if not can_be_repeated(item):
        return None
    repetition = item.stash[REPETITION] = Repetition()
    properties = list(item.user_properties)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    try:
        reports = _run(item)
        passed = len(reports) == 2 and all(report.passed for report in reports)
        if ranks.start_again(reports[-1], wanted=bool(repetition.pending), possible=passed):
            _start_again(item, repetition)
            # Shown output and properties are those of the second run alone.
            _forget_output(item)
            item.user_properties[:] = properties
            reports = _run(item)
            _blame_second_run(item, reports, repetition)
        else:
            _settle_first_run(item, reports, repetition)
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        stopping = item.session.shouldfail or item.session.shouldstop
        _phase(item, "teardown", log=True, nextitem=None if stopping else nextitem)
    finally:
        _forget_request(item)
        del item.stash[REPETITION]
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """After the second run's test function, write its baselines or fail; innermost, so that it counts as the test's."""
    repetition = item.stash.get(REPETITION, None)
    try:
        result = yield
    finally:
        if repetition is not None:
            repetition.open = False
    if repetition is not None and repetition.attempt == 2:
        _conclude(item, repetition)
    return result


def _run(item: pytest.Item) -> list[pytest.TestReport]:
    """Run setup and call as pytest's own protocol does, without logging their reports."""
    request: Any = item
    if not request._request:
        request._initrequest()
    reports = [_phase(item, "setup")]
    if reports[0].passed:
        setup_only = item.config.getoption("setuponly", False)
        if item.config.getoption("setupshow", False):
            _show(item, space=not setup_only)
        if not setup_only:
            reports.append(_phase(item, "call"))
    return reports


def _show(item: pytest.Item, space: bool) -> None:
    """Print what --setup-show prints between setup and call; the argument came with pytest 9."""
    show = _runner(item).show_test_item
    show(item, **({"add_space": space} if "add_space" in signature(show).parameters else {}))


def _phase(item: pytest.Item, when: str, log: bool = False, **arguments: object) -> pytest.TestReport:
    report: pytest.TestReport = _runner(item).call_and_report(item, when, log=log, **arguments)
    return report


def _runner(item: pytest.Item) -> Any:
    return item.config.pluginmanager.get_plugin("runner")


def _forget_request(item: pytest.Item) -> None:
    request: Any = item
    request._request = False
    request.funcargs = None


def _forget_output(item: pytest.Item) -> None:
    state: Any = item
    state._report_sections.clear()


def _start_again(item: pytest.Item, repetition: Repetition) -> None:
    """Tear the item alone down, so that higher-scoped fixtures stay, and make it as it was before its first run."""
    state: Any = item
    teardown = _phase(item, "teardown", nextitem=item.parent)
    if not teardown.passed:
        repetition.obstacle = teardown.longreprtext
    _forget_request(item)
    if getattr(state.obj, "__self__", None) is state.instance is not None:
        # A method's test object is function-scoped too, but pytest makes it only once for each item.
        del state._instance, state._obj
    repetition.attempt = 2
    repetition.open = True


def _entries(
    item: pytest.Item,
    repetition: Repetition,
    names: Iterable[str | None],
    status: Status,
    text: str | None = None,
    partings: Mapping[str | None, Parting] = MappingProxyType({}),
) -> list[Entry]:
    """Return what became of checks, in the order of the test."""
    settings = item.config.stash[SESSION].settings
    named = set(names)
    entries = [
        entry_of(
            item,
            check.observation,
            status,
            settings,
            repetition.seconds.get(name, 0.0),
            check=check,
            parting=partings.get(name),
            text=text,
        )
        for name, check in repetition.first.items()
        if name in named
    ]
    note_properties(item, entries)
    return entries


def _settle_first_run(item: pytest.Item, reports: list[pytest.TestReport], repetition: Repetition) -> None:
    """Count the checks of a test that does not run again: nothing to write, or it did not pass."""
    report = reports[-1]
    lost: Status = "not recorded (test skipped)" if report.skipped else "not recorded (test failed)"
    attach(report, _entries(item, repetition, repetition.pending, lost))
    attach(report, _entries(item, repetition, repetition.first.keys() - repetition.pending, "unchanged"))


def _blame_second_run(item: pytest.Item, reports: list[pytest.TestReport], repetition: Repetition) -> None:
    """Say of a test that passed in its first run and not in its second that it cannot be repeated."""
    report = reports[-1]
    if repetition.concluded or (len(reports) == 2 and report.passed):
        return
    line = next(iter(repetition.first.values())).observation.line
    ended = "was skipped" if report.skipped else "failed"
    text = messages.cannot_be_repeated(line, f"the test passed in its first run and {ended} in its second", _REPEATABLE)
    attach(report, _entries(item, repetition, repetition.pending, "not recorded (cannot be repeated)", text))
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", text
    else:
        report.sections.append(("difftrace", text))


def _conclude(item: pytest.Item, repetition: Repetition) -> None:
    """Write what both runs agree on, or fail the test and write nothing."""
    repetition.concluded = True
    noted = notes(item)
    told = partial(_entries, item, repetition)
    text = _obstacle(repetition)
    if text is not None:
        noted.entries += told(repetition.pending, "not recorded (cannot be repeated)", text)
        pytest.fail(text, pytrace=False)
    for name in [name for name in repetition.first if name in repetition.pending]:
        observation = repetition.first[name].observation
        step = non_finite_step(observation.run)
        if step is not None:
            text = messages.not_finite(observation, step)
            noted.entries += told([name], "not recorded (not finite)", text)
            noted.entries += told(repetition.pending.difference([name]), "not recorded (test failed)")
            pytest.fail(text, pytrace=False)
    settings = item.config.stash[SESSION].settings
    found = {name: _two_runs(repetition, name) for name in repetition.first}
    parted = {
        name: _parting(repetition, name, found[name])
        for name in found
        if not _reproduces(repetition, name, found[name], settings)
    }
    if parted:
        text = _parting_text(repetition, *next(iter(parted.items())))
        noted.entries += told(parted, "not reproducible", text, parted)
        noted.entries += told(repetition.pending.difference(parted), "not recorded (test failed)")
        pytest.fail(text, pytrace=False)
    names = [name for name in repetition.first if name in repetition.pending]
    noted.entries += told(repetition.first.keys() - repetition.pending, "unchanged")
    for index, name in enumerate(names):
        check = repetition.first[name]
        problem = _write(check, item.config)
        if problem is not None:
            noted.entries += told(names[index:], "not recorded (could not be written)", problem)
            pytest.fail(problem, pytrace=False)
        new = check.verdict == "missing" or check.source != check.target
        noted.entries += told([name], "new" if new else "changed")
        if found[name].divergence_class != "IDENTICAL":
            noted.remarks.append("logits not reproducible")
        if loses_budget(check):
            noted.remarks.append("budget dropped")
        if loses_probes(check):
            noted.remarks.append("probes dropped")


def _obstacle(repetition: Repetition) -> str | None:
    """Return the text for a test whose second run says nothing about the first, or None."""
    first, second = repetition.first, repetition.second
    line = next(iter(first.values())).observation.line
    if repetition.obstacle is not None:
        last_line = repetition.obstacle.strip().splitlines()[-1:]
        reason = f"the teardown after its first run failed ({printable(''.join(last_line))})"
        return messages.cannot_be_repeated(line, reason, _REPEATABLE)
    if list(first) != list(second):
        lists = (", ".join(name or "one without a name" for name in run) or "none" for run in (first, second))
        reason = "the test's checks were {} in its first run and {} in its second".format(*lists)
        return messages.cannot_be_repeated(line, reason, _REPEATABLE)
    return None


def _two_runs(repetition: Repetition, name: str | None) -> Classification:
    return classify(repetition.first[name].observation.run, repetition.second[name].run)


def _reproduces(repetition: Repetition, name: str | None, found: Classification, settings: Settings) -> bool:
    """Return whether the second run decided as the first did and would pass as its verification.

    Other logits under equal decisions do no harm as long as the policy lets them pass: a test holds on to decisions,
    and on some devices no run repeats its logits to the bit. Anything more would fail a later verification at random.
    """
    same = repetition.first[name].observation.run.same_decisions(repetition.second[name].run)
    return same and verdict_on(found, settings).passes


def _parting(repetition: Repetition, name: str | None, found: Classification) -> Parting:
    """Return how a check's two runs differ, which is by themselves if nothing that they were given does."""
    first, second = repetition.first[name].observation.run, repetition.second[name].run
    finding = run_to_run_finding(first, second)
    if isinstance(finding, Finding):
        found = replace(found, **vars(finding))
    return Parting(first, second, found, divergence_of(first, second, found))


def _parting_text(repetition: Repetition, name: str | None, parting: Parting) -> str:
    """Return the text for a check that the second run saw end differently."""
    found = parting.classification
    if found.divergence_class == "RUN_TO_RUN":
        reasons = [f"{found.divergence_class}: {found.reason}"]
    else:
        reasons = [] if found.divergence_class is None else reason_lines(found)
    first, second = repetition.first[name].observation, repetition.second[name]
    return messages.not_reproducible(first, second, parting.divergence, reasons)


def _write(check: Check, config: pytest.Config) -> str | None:
    """Write the baseline of `check`, if this process is to; return the failure's text if it cannot, else None."""
    if not ranks.writes():
        return None
    # Under xdist another worker may have written there since the first run.
    replaced = written(check.target)
    if replaced is not None and replaced.test not in (None, check.observation.test):
        return messages.other_test(check, replaced.test, config)
    baseline = to_record(check)
    try:
        # Before the baseline that refers to them.
        if check.observation.logits is not None:
            put_beside(check.target, check.observation.logits)
        save(check.target, baseline)
    except DiffTraceError as error:
        return f"difftrace: {printable(str(error))}"
    if replaced is not None and replaced.logits is not None and baseline.logits is None:
        remove_beside(check.target)
    return None
