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
# What is in a results folder, and files that a process which was ended left unfinished.
_OWN: Final = re.compile("|".join(map(re.escape, (*_FILES, RECORDED, "received", ".gitignore"))))
_UNFINISHED: Final = re.compile(r"\.difftrace-[0-9a-f]{16}\.tmp")
_LONGEST_SHOWN: Final = 80
_LONGEST_NAME: Final = 255  # bytes, on nearly every file system
# What the upload is given is a pattern: a home folder, a comment or an exclusion by its first character, and wildcards.
_PATTERN: Final = re.compile(r"\A[~#!]|[*?\[\]\\\r\n]|\A\s|\s\Z")


def results_folder(workspace: Path, relative: str) -> Path:
    """Return the folder `relative`, below `workspace`, ready for a new run.

    Raises:
        ActionError: it leads out of the workspace, is the workspace or its `.git`, is no folder, holds anything but
            results, or could be read as a pattern.
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
    _check_name(folder, shown)
    if _links_above(workspace, folder):
        raise ActionError(f"input results-dir: {shown!r} goes through a symbolic link; name a folder itself")
    parts = folder.relative_to(workspace).parts
    if not parts or parts[0].lower() == ".git":
        raise ActionError(f"input results-dir: {shown!r} is not a folder of its own")
    if folder.exists() and not folder.is_dir():
        raise ActionError(f"input results-dir: {shown!r} is a file")
    _check_own(folder, shown)
    for name in (*_FILES, RECORDED):
        try:
            _remove(folder / name)
        except OSError as error:
            raise ActionError(
                f"input results-dir: {name} of an earlier run in {shown!r} cannot be removed ({error.strerror}); remove"
                " it, or name another folder"
            ) from None
    return folder


def _check_name(folder: Path, shown: str) -> None:
    """Raise where no folder can have this name."""
    longest = max((len(os.fsencode(part)) for part in folder.parts), default=0)
    reason = f"a name in it is longer than {_LONGEST_NAME} bytes" if longest > _LONGEST_NAME else None
    if reason is None:
        try:
            folder.lstat()
        except FileNotFoundError:
            return
        except OSError as error:
            reason = error.strerror
    if reason is not None:
        cut = shown if len(shown) <= _LONGEST_SHOWN else f"{shown[: _LONGEST_SHOWN - 1]}…"
        raise ActionError(f"input results-dir: there can be no folder {cut!r} ({reason})")


def _check_own(folder: Path, shown: str) -> None:
    """Raise where the folder holds what is not a run's: all of it would be uploaded."""
    try:
        names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    except OSError as error:
        raise ActionError(f"input results-dir: {shown!r} cannot be read ({error.strerror})") from None
    for name in names:
        if _OWN.fullmatch(name) is None and _UNFINISHED.fullmatch(name) is None:
            raise ActionError(
                f"input results-dir: {shown!r} holds {printable(name)!r}, which is not of a run of this action; name a"
                " folder that is not there yet, or is empty"
            )


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
