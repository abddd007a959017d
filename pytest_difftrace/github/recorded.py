"""Recorded baselines as part of the results folder, so that a job without write access can hand them on.

Below `recorded/` they lie as below pytest's root folder; `ROOTDIR` says which folder of the workspace that is.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from difftrace.core.atomic import write_atomically
from difftrace.core.baseline import Baseline, parse
from difftrace.core.checked import Checked
from difftrace.core.errors import FormatError
from difftrace.core.file_format import read_file
from difftrace.core.inside import inside
from difftrace.core.limits import MAX_BASELINE_BYTES
from difftrace.core.logits_reference import RecordedLogits
from difftrace.core.report import Report
from difftrace.core.report_files import ReportFiles
from difftrace.core.side_logits import open_beside, put_beside
from pytest_difftrace.github.results_folder import RECORDED

ROOTDIR: Final = f"{RECORDED}/rootdir.txt"

_LONGEST_PATH: Final = 4096


def written(report: Report) -> list[Checked]:
    """Return the checks whose baselines the run wrote."""
    return [check for check in report.checks if check.status in ("new", "changed") and check.target is not None]


def copy_recorded(files: ReportFiles, folder: Path, workspace: Path) -> int:
    """Copy the baselines that the run wrote to `folder`, below `recorded/`; return how many.

    What tests may have put there is removed. `workspace` and `folder` have no links in their paths.

    Raises:
        DiffTraceError: one is not there or leads elsewhere.
    """
    if (folder / RECORDED).is_dir():
        shutil.rmtree(folder / RECORDED)
    checks = written(files.report)
    # A version of the plugin that does not say it, as found with `install: none`, was mostly run in the workspace.
    root = workspace if files.report.rootdir is None else (files.path.parent / files.report.rootdir).resolve()
    for check in checks:
        assert check.target is not None
        source, target = inside(root, check.target), inside(folder, f"{RECORDED}/{check.target}")
        data, name = read_file(source, MAX_BASELINE_BYTES)
        write_atomically(target, data)
        hand_on_logits(parse(data, name), source, target)
    if checks and root != workspace and root.is_relative_to(workspace):
        write_atomically(inside(folder, ROOTDIR), root.relative_to(workspace).as_posix().encode() + b"\n")
    return len(checks)


def hand_on_logits(baseline: Baseline, source: Path, target: Path) -> None:
    """Copy the logits that `baseline`, in the file `source`, refers to, where they are there, to beside `target`.

    Raises:
        DiffTraceError: they are a link, others than it refers to, or cannot be copied.
    """
    reference = baseline.logits
    if reference is not None and open_beside(source, reference) is not None:
        put_beside(target, RecordedLogits(inside(source.parent, reference.file), reference))


def recorded_in(results: Path) -> str | None:
    """Return what folder of the workspace the baselines in the results folder are seen from; None for the workspace.

    Raises:
        FormatError: the file that says it cannot be read.
    """
    file = inside(results, ROOTDIR)
    if not file.exists():
        return None
    data, source = read_file(file, _LONGEST_PATH)
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise FormatError(f"{source}: is not UTF-8") from None
