"""The baselines that a command is given: files, or folders of tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from difftrace.core.baseline_names import FOLDER
from difftrace.core.errors import DiffTraceError

_FORMAT: Final = b'"difftrace-baseline"'
# Only the fingerprint, of some kilobytes, comes before it.
_HEAD: Final = 1 << 16


def baseline_files(paths: Sequence[Path], what: str) -> list[Path]:
    """Return the files among `paths`, and the baselines of the folders among them.

    Those are every file below a `__difftrace__` folder, and what lies in the folder itself and calls itself a baseline,
    as what `difftrace record` writes. Each comes once. `what` is done with them, for the message. Raises DiffTraceError
    where there are none.
    """
    files: dict[Path, Path] = {}
    for file in (file for path in paths for file in _below(path)):
        files.setdefault(file.resolve(), file)
    if not files:
        names = ", ".join(map(str, paths))
        raise DiffTraceError(f"{names}: no {FOLDER} folder below and no baseline in it, so there is nothing to {what}")
    return list(files.values())


def _below(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for file in sorted(path.rglob("*.json")):
        # Opening one would wait for a writer.
        if file.is_fifo():
            continue
        if FOLDER in file.resolve().parts or (file.parent == path and _is_called_baseline(file)):
            yield file


def _is_called_baseline(file: Path) -> bool:
    """Say whether a file is meant to be a baseline, so that one that is broken is told from a file of something
    else."""
    try:
        with file.open("rb") as opened:
            return _FORMAT in opened.read(_HEAD)
    except OSError:
        return False
