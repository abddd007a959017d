"""Paths that files and test ids name, kept inside the folder that they are meant for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from difftrace.core.errors import PathError
from difftrace.core.text import printable

_DRIVE: Final = re.compile(r"[A-Za-z]:")


def inside(folder: Path, relative: str) -> Path:
    """Return `relative`, which has forward slashes, below `folder`.

    Links below `folder` are not followed, wherever they lead; `folder` itself may be one.

    Raises:
        PathError: it is absolute, goes up, or goes through a link.
    """
    parts = relative.split("/")
    if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts) or _DRIVE.match(relative):
        raise PathError(f"{printable(relative)}: is no path below a folder")
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise PathError(f"{printable(str(path))}: is a symbolic link, which is not followed; remove it")
    return path
