"""The baselines that a command is given: files, or folders of tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from difftrace.core.baseline_names import FOLDER
from difftrace.core.errors import DiffTraceError


def baseline_files(paths: Sequence[Path], what: str) -> list[Path]:
    """Return the files among `paths`, and every one below a `__difftrace__` folder of the folders among them.

    Each comes once. `what` is done with them, for the message. Raises DiffTraceError where there are none.
    """
    files: dict[Path, Path] = {}
    for file in (file for path in paths for file in _below(path)):
        files.setdefault(file.resolve(), file)
    if not files:
        raise DiffTraceError(f"{', '.join(map(str, paths))}: no {FOLDER} folder below, so there is nothing to {what}")
    return list(files.values())


def _below(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for file in sorted(path.rglob("*.json")):
        if FOLDER in file.resolve().parts:
            yield file
