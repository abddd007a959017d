"""The results folder, which cannot be outside the workspace: it is emptied of old reports, and uploaded."""

from __future__ import annotations

import os
from pathlib import Path

from difftrace.core.text import printable
from pytest_difftrace.github.errors import ActionError

_FILES = ("report.json", "report.html", "junit.xml")


def results_folder(workspace: Path, relative: str) -> Path:
    """Return the folder `relative`, below `workspace`, ready for a new run.

    Raises:
        ActionError: it leads out of the workspace, is the workspace or its `.git`, or is no folder.
    """
    workspace = workspace.resolve()
    shown = printable(relative)
    if not relative or Path(relative).is_absolute() or ".." in Path(relative).parts:
        raise ActionError(f"input results-dir: it takes a folder below the workspace, not {shown!r}")
    folder = workspace / relative
    for parent in (folder, *folder.parents):
        if parent == workspace:
            break
        if parent.is_symlink():
            raise ActionError(f"input results-dir: {shown!r} goes through a symbolic link; name a folder itself")
    parts = folder.relative_to(workspace).parts
    if not parts or parts[0].lower() == ".git":
        raise ActionError(f"input results-dir: {shown!r} is not a folder of its own")
    if folder.exists() and not folder.is_dir():
        raise ActionError(f"input results-dir: {shown!r} is a file")
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
    return folder


def links_below(folder: Path) -> list[str]:
    """Return the symbolic links in `folder`, and itself if it is one: an upload would follow them."""
    if folder.is_symlink():
        return [folder.name]
    found = []
    for parent, folders, files in os.walk(folder):
        paths = (Path(parent, name) for name in (*folders, *files))
        found += [path.relative_to(folder).as_posix() for path in paths if path.is_symlink()]
    return sorted(found)
