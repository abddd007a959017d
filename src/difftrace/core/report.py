"""The report file: what a run of a test suite says of its checks, as JSON."""

from __future__ import annotations

import os
from pathlib import Path

from difftrace.core.atomic import write_atomically
from difftrace.core.checked import (
    GOOD,
    STATUSES,
    BaselineFile,
    Checked,
    FirstDivergence,
    ReceivedFile,
    ReportedMeasure,
    ReportedOutcome,
    ReportedSuspect,
    Status,
)
from difftrace.core.file_format import read_file
from difftrace.core.limits import MAX_REPORT_BYTES
from difftrace.core.report_json import dump, parse
from difftrace.core.run_report import TEST_OUTCOMES, Report, RunSettings, SeenTest, Selection, TestOutcome
from difftrace.core.text import printable

__all__ = [
    "GOOD",
    "STATUSES",
    "TEST_OUTCOMES",
    "BaselineFile",
    "Checked",
    "FirstDivergence",
    "ReceivedFile",
    "Report",
    "ReportedMeasure",
    "ReportedOutcome",
    "ReportedSuspect",
    "RunSettings",
    "SeenTest",
    "Selection",
    "Status",
    "TestOutcome",
    "dump",
    "load",
    "parse",
    "save",
]


def load(path: str | os.PathLike[str]) -> Report:
    """Return the report in the file `path`.

    Raises:
        FormatError: one line naming the file and the field, also if it cannot be read.
    """
    return parse(*read_file(path, MAX_REPORT_BYTES))


def save(path: str | os.PathLike[str], report: Report) -> None:
    """Write `report` to the file `path` as a whole or not at all, creating missing folders.

    Raises:
        WriteError: it could not be written; a file that was there before is whole.
        FormatError: `report` holds something that could not be read back; nothing was written.
    """
    write_atomically(path, dump(report, printable(str(Path(path)))))
