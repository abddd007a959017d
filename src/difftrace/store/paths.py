"""Where a store and its exports may lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from difftrace.core.errors import StoreError
from difftrace.core.text import printable

# The file, and what SQLite keeps beside it.
_OWN: Final = ("", "-wal", "-shm", "-journal")


def checked_path(path: str | os.PathLike[str]) -> Path:
    """Return `path` as a Path.

    Raises:
        StoreError: it is none, or holds a NUL character, at which SQLite would end it.
    """
    try:
        text = os.fspath(path)
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise StoreError(f"the path of a file must be a text or a Path, not {type(path).__name__}")
    if "\0" in text:
        raise StoreError(f"{printable(text)}: holds a NUL character, which no path can; choose another")
    return Path(text)


def refuse_own_files(store_path: Path, target: Path) -> None:
    """Return if an export in the file `target` leaves the store in `store_path` alone.

    Writing it would replace the store, and reading it drop SQLite's locks (sqlite.org/howtocorrupt.html, section 2.2).

    Raises:
        StoreError: `target` is a file of that store, by whatever name, links included.
    """
    for suffix in _OWN:
        if _is_same(target, store_path.with_name(store_path.name + suffix)):
            raise StoreError(
                f"{printable(str(target))}: is a file of the store itself, which an export there would destroy;"
                " choose another"
            )


def _is_same(one: Path, other: Path) -> bool:
    try:
        # The log comes and goes, so that its name counts even while there is none.
        return os.path.realpath(one) == os.path.realpath(other) or one.samefile(other)
    except (OSError, ValueError):
        return False
