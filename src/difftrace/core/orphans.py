"""Baselines that no test uses any more, told from the report of a run of all tests."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from difftrace.core.baseline import load
from difftrace.core.baseline_names import FOLDER, file_stem
from difftrace.core.errors import FormatError, ReportError
from difftrace.core.inside import inside
from difftrace.core.report import Report
from difftrace.core.report_files import ReportFiles, has_module
from difftrace.core.test_id import TestId

_TEMPORARY: Final = re.compile(r"\.difftrace-[0-9a-f]{16}\.tmp")


@dataclass(frozen=True)
class Found:
    """A file, seen from the root folder, and why it is an orphan, or why it is kept although no check used it."""

    path: str
    reason: str


@dataclass(frozen=True)
class Orphans:
    """What lies in the folders that a run covered and was not used by it.

    Attributes:
        orphans: baselines without a check.
        kept: baselines that were not used, but may be another time.
        temporary: what writes that were cut off left behind.
        used: how many baselines belong to checks of the run.
    """

    orphans: tuple[Found, ...]
    kept: tuple[Found, ...]
    temporary: tuple[str, ...]
    used: int


def find_orphans(files: ReportFiles, rootdir: Path) -> Orphans:
    """Return what the folders that the run covered hold.

    Raises:
        ReportError: the run did not cover all tests, or left some out, so that it cannot tell what is unused.
    """
    report = files.report
    obstacles = [*report.incomplete_because, *report.partial_because]
    if not any(test.outcome != "deselected" for test in report.tests):
        obstacles.append("no test was collected")
    if obstacles:
        raise ReportError(
            f"only a run of all tests tells which baselines are unused, and this one did not get to all:"
            f" {'; '.join(obstacles)}"
        )
    written = files.path.stat().st_mtime_ns
    judge = _Judge(report, rootdir)
    orphans: list[Found] = []
    kept: list[Found] = []
    temporary: list[str] = []
    used = 0
    for path in _below(report, rootdir):
        seen = path.relative_to(rootdir).as_posix()
        later = path.lstat().st_mtime_ns > written
        if path.is_symlink():
            kept.append(Found(seen, "it is a symbolic link"))
        elif _TEMPORARY.fullmatch(path.name):
            temporary += [] if later else [seen]
        elif path.suffix == ".json":
            if judge.is_used(path):
                used += 1
                continue
            is_orphan, reason = judge.verdict(path)
            if is_orphan and later:
                is_orphan, reason = False, f"{reason}, but it was written after the report"
            (orphans if is_orphan else kept).append(Found(seen, reason))
    return Orphans(tuple(orphans), tuple(kept), tuple(temporary), used)


def remove(found: Orphans, rootdir: Path) -> None:
    """Delete the orphans and the temporary files, and folders that are empty then."""
    for seen in (*(one.path for one in found.orphans), *found.temporary):
        path = inside(rootdir, seen)
        path.unlink()
        folder = path.parent
        while FOLDER in folder.parts and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent


class _Judge:
    def __init__(self, report: Report, rootdir: Path) -> None:
        self._rootdir = rootdir
        self._outcomes = {(test.module, test.id): test.outcome for test in report.tests}
        self._modules = {test.module for test in report.tests}
        self._used = {
            _stem_path(check.module, file_stem(TestId(PurePosixPath(check.module).name, check.id, check.name)))
            for check in report.checks
        }

    def is_used(self, path: Path) -> bool:
        """Return whether the file is the baseline of a check, for this platform or another."""
        return path.relative_to(self._rootdir).with_name(_stem(path)).as_posix() in self._used

    def verdict(self, path: Path) -> tuple[bool, str]:
        """Return whether the file, which no check used, is an orphan, and why or why not."""
        try:
            test = load(path).test
        except FormatError:
            test = None
        beside = path.parent.parent.parent.relative_to(self._rootdir)
        module = (beside / (f"{path.parent.name}.py" if test is None else test.module)).as_posix()
        if not has_module(self._rootdir, module):
            return True, f"{module} is gone"
        if module not in self._modules:
            return False, f"no test of {module} was collected"
        if test is None:
            return False, "it cannot be read, so that its test is not known"
        if file_stem(test) != _stem(path):
            return True, f"no check reads a file of this name; that of {test.id} has another"
        outcome = self._outcomes.get((module, test.id))
        if outcome is None:
            return True, f"{module} has no test {test.id}"
        if outcome != "passed":
            return False, f"its test did not get to its end ({outcome})"
        if "@" in path.name:
            return False, "it is for a platform, and its test may check it there"
        return True, f"{test.id} makes no {'unnamed check' if test.name is None else f'check {test.name}'}"


def _below(report: Report, rootdir: Path) -> Iterator[Path]:
    """Yield every file in the baseline folders that the run covered, once, in order."""
    found: set[Path] = set()
    for cover in report.selection.covers:
        top = rootdir if cover == "." else inside(rootdir, cover)
        if top.is_file():
            folder = inside(top.parent, f"{FOLDER}/{top.stem}")
            found.update(file for file in folder.glob("*") if file.is_file() or file.is_symlink())
            continue
        for parent, folders, names in os.walk(top):
            folders[:] = [name for name in folders if not _is_foreign(Path(parent, name))]
            if Path(parent).parent.name == FOLDER:
                found.update(Path(parent, name) for name in names)
    yield from sorted(found)


def _is_foreign(folder: Path) -> bool:
    """Return whether a folder holds no tests of the project: hidden, or an environment or packages."""
    return folder.name.startswith(".") or folder.name == "node_modules" or (folder / "pyvenv.cfg").exists()


def _stem(path: Path) -> str:
    return path.name.removesuffix(".json").partition("@")[0]


def _stem_path(module: str, stem: str) -> str:
    pure = PurePosixPath(module)
    return (pure.parent / FOLDER / pure.stem / stem).as_posix()
