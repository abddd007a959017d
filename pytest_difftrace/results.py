"""The results folder: the runs of failed checks, as files that can be looked at and accepted."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pytest_difftrace.options import Settings
from pytest_difftrace.rooted import from_root
from pytest_difftrace.session import SESSION

if TYPE_CHECKING:
    from difftrace.core.checked import ReceivedFile
    from difftrace.core.recording import Baseline

REPORT: Final = "report.json"
_IGNORE: Final = b"# Made by pytest-difftrace.\n*\n"


def write_received(config: pytest.Config, module: Path, run: Baseline, name: str) -> ReceivedFile:
    """Write `run`, of a failed check in the file `module`, whose baseline is called `name`.

    Raises:
        DiffTraceError: it could not be written; nothing was written outside the results folder.
    """
    from difftrace.core.atomic import write_atomically
    from difftrace.core.baseline import dump
    from difftrace.core.baseline_names import received_path
    from difftrace.core.checked import ReceivedFile
    from difftrace.core.inside import inside

    folder = prepared(config, config.stash[SESSION].settings)
    relative = received_path(from_root(module, config), name)
    data = dump(run, name)
    write_atomically(inside(folder, relative), data)
    return ReceivedFile(relative, run.digest, f"sha256:{hashlib.sha256(data).hexdigest()}")


def prepared(config: pytest.Config, settings: Settings) -> Path:
    """Return the results folder, which exists then and is ignored by git.

    Raises:
        DiffTraceError: it cannot be made, or leads out of the root folder although no command line named it.
    """
    from difftrace.core.atomic import write_atomically
    from difftrace.core.errors import PathError
    from difftrace.core.text import printable

    folder = settings.results
    if settings.results_confined and not folder.resolve().is_relative_to(config.rootpath.resolve()):
        raise PathError(
            f"{printable(str(folder))}: this results folder is outside the root folder; name it on the command line,"
            " --difftrace-results=DIR, if it is meant"
        )
    ignore = folder / ".gitignore"
    if not folder.is_dir() or (not any(folder.iterdir())):
        write_atomically(ignore, _IGNORE)
    return folder


def forget_received(folder: Path, kept: Set[str]) -> None:
    """Remove the received files of earlier runs; `kept` has the paths of this run's, seen from `folder`."""
    from difftrace.core.baseline_names import RECEIVED

    top = folder / RECEIVED
    if top.is_symlink():
        return
    for parent, folders, files in os.walk(top, topdown=False):
        for name in files:
            file = Path(parent, name)
            if name.endswith(".json") and file.relative_to(folder).as_posix() not in kept:
                file.unlink()
        for name in folders:
            with contextlib.suppress(OSError):  # not empty, or a link
                Path(parent, name).rmdir()
