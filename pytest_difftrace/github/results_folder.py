"""The results folder, which cannot be outside the workspace: it is emptied of old reports, and uploaded."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Final

from difftrace.core.text import printable
from pytest_difftrace.github.errors import ActionError

RECORDED: Final = "recorded"
"""The folder of the baselines that a recording hands on."""

_FILES: Final = ("report.json", "report.html", "junit.xml")
# What the upload is given is a pattern: a home folder, a comment or an exclusion by its first character, and wildcards.
_PATTERN: Final = re.compile(r"\A[~#!]|[*?\[\]\\\r\n]|\A\s|\s\Z")


def results_folder(workspace: Path, relative: str) -> Path:
    """Return the folder `relative`, below `workspace`, ready for a new run.

    Raises:
        ActionError: it leads out of the workspace, is the workspace or its `.git`, is no folder, or could be read as a
            pattern.
    """
    workspace = workspace.resolve()
    shown = printable(relative)
    if not relative or Path(relative).is_absolute() or ".." in Path(relative).parts:
        raise ActionError(f"input results-dir: it takes a folder below the workspace, not {shown!r}")
    if _PATTERN.search(Path(relative).as_posix()):
        raise ActionError(
            f"input results-dir: {shown!r} would be a pattern to the upload; name a folder without * ? [ ] \\, without"
            " ~ # ! at its beginning and without blanks at its ends"
        )
    folder = workspace / relative
    if _links_above(workspace, folder):
        raise ActionError(f"input results-dir: {shown!r} goes through a symbolic link; name a folder itself")
    parts = folder.relative_to(workspace).parts
    if not parts or parts[0].lower() == ".git":
        raise ActionError(f"input results-dir: {shown!r} is not a folder of its own")
    if folder.exists() and not folder.is_dir():
        raise ActionError(f"input results-dir: {shown!r} is a file")
    for name in (*_FILES, RECORDED):
        try:
            _remove(folder / name)
        except OSError as error:
            raise ActionError(
                f"input results-dir: {name} of an earlier run in {shown!r} cannot be removed ({error.strerror}); remove"
                " it, or name another folder"
            ) from None
    return folder


def _remove(path: Path) -> None:
    if path.name == RECORDED and path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def links_of(workspace: Path, folder: Path) -> list[str]:
    """Return the links on the way to `folder` and in it, seen from `workspace`: an upload would follow them."""
    found = _links_above(workspace, folder)
    if not found:
        for parent, folders, files in os.walk(folder):
            found += [path for name in (*folders, *files) if (path := Path(parent, name)).is_symlink()]
    return sorted(path.relative_to(workspace).as_posix() for path in found)


def _links_above(workspace: Path, folder: Path) -> list[Path]:
    above = folder.relative_to(workspace)
    return [path for part in (above, *above.parents[:-1]) if (path := workspace / part).is_symlink()]
