"""Where a report and what it names lie: the report's file, its results folder, the root folder of the tests."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from difftrace.core.errors import FormatError, PathError, ReportError
from difftrace.core.inside import inside
from difftrace.core.report import Report, load
from difftrace.core.text import printable

REPORT: Final = "report.json"


@dataclass(frozen=True)
class ReportFiles:
    """A report that was read.

    Attributes:
        path: its file.
        report: what it says.
        results: the results folder; None where the report names none.
    """

    path: Path
    report: Report
    results: Path | None


def open_report(given: Path) -> ReportFiles:
    """Return the report in the file `given`, or in the results folder of that name.

    Raises:
        FormatError: there is none, or it cannot be read.
    """
    path = given / REPORT if given.is_dir() else given
    if given.is_dir() and not path.exists():
        raise FormatError(
            f"{printable(str(given))}: holds no {REPORT}, so it is no results folder: give the folder that a run of "
            "pytest wrote (.difftrace by default), or the file of its --difftrace-report"
        )
    report = load(path)
    if given.is_dir():
        return ReportFiles(path, report, given)
    return ReportFiles(path, report, None if report.results is None else path.parent / report.results)


def find_rootdir(files: ReportFiles, given: Path | None, modules: Iterable[str]) -> Path:
    """Return the root folder: `given`, else where the report says it is, else the current folder.

    Raises:
        ReportError: one of `modules`, files of tests, is not in it.
    """
    named = files.report.rootdir
    candidates = [given] if given is not None else [Path()]
    # A report may come from elsewhere: it can say how far up the root folder is, not which other folder it is.
    if given is None and named is not None and set(named.split("/")) <= {".", ".."}:
        candidates.insert(0, files.path.parent / named)
    wanted = sorted(set(modules))
    missing = []
    for folder in candidates:
        absent = next((module for module in wanted if not has_module(folder, module)), None)
        if absent is None:
            return folder
        missing.append(f"{printable(absent)} is not in {printable(os.path.normpath(folder.absolute()))}")
    raise ReportError(f"{'; '.join(missing)}: give the folder of the tests that were run with --rootdir")


def has_module(rootdir: Path, module: str) -> bool:
    """Return whether the test file `module`, seen from the root folder, is there and no link."""
    try:
        return inside(rootdir, module).is_file()
    except PathError:
        return False
