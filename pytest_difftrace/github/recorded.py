"""Recorded baselines as part of the results folder, so that a job without write access can hand them on."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from difftrace.core.atomic import write_atomically
from difftrace.core.checked import Checked
from difftrace.core.file_format import read_file
from difftrace.core.inside import inside
from difftrace.core.limits import MAX_BASELINE_BYTES
from difftrace.core.report import Report
from difftrace.core.report_files import ReportFiles, find_rootdir

RECORDED: Final = "recorded"


def written(report: Report) -> list[Checked]:
    """Return the checks whose baselines the run wrote."""
    return [check for check in report.checks if check.status in ("new", "changed") and check.target is not None]


def copy_recorded(files: ReportFiles, folder: Path) -> int:
    """Copy the baselines that the run wrote to `folder`, below `recorded/`; return how many.

    Raises:
        DiffTraceError: one is not there or leads elsewhere.
    """
    checks = written(files.report)
    root = find_rootdir(files, None, [check.module for check in checks])
    for check in checks:
        assert check.target is not None
        data, _ = read_file(inside(root, check.target), MAX_BASELINE_BYTES)
        write_atomically(inside(folder, f"{RECORDED}/{check.target}"), data)
    return len(checks)
