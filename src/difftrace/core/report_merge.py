"""The reports of shards as one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from difftrace.core.atomic import write_all_atomically
from difftrace.core.checked import Checked
from difftrace.core.errors import DiffTraceError, ReportError
from difftrace.core.file_format import read_file
from difftrace.core.inside import inside
from difftrace.core.limits import MAX_BASELINE_BYTES
from difftrace.core.report import Report, SeenTest, Selection, TestOutcome, save
from difftrace.core.report_files import ReportFiles
from difftrace.core.text import printable

# Of a test that several shards ran, what is worst counts; having run counts more than not.
_WORST: Final[tuple[TestOutcome, ...]] = ("error", "failed", "passed", "skipped", "not run", "deselected")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Merged:
    """Several reports as one.

    Attributes:
        report: the one.
        received: bytes of the received runs that it names, by their paths.
        duplicates: checks that several reports have; one that failed counts.
        lost: received runs that are missing or not what their report says, with why.
    """

    report: Report
    received: dict[str, bytes]
    duplicates: tuple[str, ...]
    lost: tuple[str, ...]


def merge(shards: Sequence[ReportFiles], folder: Path) -> Merged:
    """Return the reports of shards of one suite as one, which is to lie in `folder`.

    A test that one shard left out and another ran is not left out. What a shard does not know to be missing, because
    it did not collect it, stays unknown.
    """
    reports = [shard.report for shard in shards]
    runs = _distinct(run for report in reports for run in report.runs)
    places = {json.dumps(one, sort_keys=True): one for report in reports for one in report.environments}
    tests = _tests(reports)
    checks: dict[tuple[str, str | None], Checked] = {}
    received: dict[str, bytes] = {}
    duplicates, lost = [], []
    for shard in shards:
        for check in shard.report.checks:
            key = (check.nodeid, check.name)
            if key in checks:
                duplicates.append(printable(check.title))
                if check.good or not checks[key].good:
                    continue
            data, problem = _received(shard, check)
            if problem is not None:
                lost.append(problem)
            if data is not None and check.received is not None:
                received[check.received.path] = data
            checks[key] = _renumbered(check, shard.report, runs, list(places), data is not None)
    filtered = tuple(_distinct(name for report in reports for name in report.selection.filtered_by))
    left_out = any(test.outcome == "deselected" for test in tests.values())
    order = {nodeid: index for index, nodeid in enumerate(tests)}
    merged = Report(
        incomplete_because=tuple(_distinct(why for report in reports for why in report.incomplete_because)),
        rootdir=_rootdir(shards, folder),
        results="." if received else None,
        runs=tuple(runs),
        selection=Selection(
            covers=tuple(_distinct(cover for report in reports for cover in report.selection.covers)),
            narrowed_by=tuple(_distinct(why for report in reports for why in report.selection.narrowed_by)),
            filtered_by=filtered if left_out else (),
        ),
        environments=tuple(places.values()),
        tests=tuple(tests.values()),
        checks=tuple(sorted(checks.values(), key=lambda check: order.get(check.nodeid, len(order)))),
    )
    return Merged(merged, received, tuple(_distinct(duplicates)), tuple(lost))


def write_merged(merged: Merged, path: Path) -> None:
    """Write the report to the file `path`, and its received runs beside it.

    Raises:
        WriteError: that did not work.
    """
    write_all_atomically({inside(path.parent, relative): data for relative, data in merged.received.items()})
    save(path, merged.report)


def _rootdir(shards: Sequence[ReportFiles], folder: Path) -> str | None:
    """Return the root folder of all `shards` seen from `folder`; None where they lead to several, or to none above it.

    Shards come from elsewhere: what they say may lead up from the new report, not to any other folder.
    """
    named = {None if one.report.rootdir is None else _real(one.path.parent / one.report.rootdir) for one in shards}
    root = next(iter(named)) if len(named) == 1 else None
    start = _real(folder)
    if root is None or root not in (start, *start.parents):
        return None
    return Path(os.path.relpath(root, start)).as_posix()


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _tests(reports: Sequence[Report]) -> dict[str, SeenTest]:
    tests: dict[str, SeenTest] = {}
    for report in reports:
        for test in report.tests:
            known = tests.get(test.nodeid, test)
            outcome = min(known.outcome, test.outcome, key=_WORST.index)
            tests[test.nodeid] = replace(known, outcome=outcome)
    return tests


def _received(shard: ReportFiles, check: Checked) -> tuple[bytes | None, str | None]:
    if check.received is None:
        return None, None
    try:
        if shard.results is None:
            raise ReportError("its report does not say where its results folder is; give the folder itself")
        data, _ = read_file(inside(shard.results, check.received.path), MAX_BASELINE_BYTES)
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != check.received.sha256:
            raise ReportError("it is not the file that the run wrote")
    except DiffTraceError as error:
        return None, printable(f"{check.received.path}: {error}")
    return data, None


def _renumbered(check: Checked, own: Report, runs: Sequence[object], places: Sequence[str], has_file: bool) -> Checked:
    environment = None
    if check.environment is not None:
        environment = places.index(json.dumps(own.environments[check.environment], sort_keys=True))
    return replace(
        check,
        run=runs.index(own.runs[check.run]),
        environment=environment,
        received=check.received if has_file else None,
    )


def _distinct(values: Iterable[Value]) -> list[Value]:
    return list(dict.fromkeys(values))
