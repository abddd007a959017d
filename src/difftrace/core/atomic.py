"""Replacing a file as a whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from difftrace.core.errors import WriteError
from difftrace.core.text import printable

_ADVICE: Final = {
    errno.ENOSPC: "free space on its disk",
    errno.EDQUOT: "free space in your quota",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EROFS: "choose a folder on a writable disk",
    errno.EACCES: "make its folder writable",
    errno.EPERM: "make its folder writable",
    errno.ENAMETOOLONG: "shorten its name",
    errno.ENOTDIR: "move the file away that stands where a folder should be",
    errno.EISDIR: "move the folder away that stands where the file should be",
}


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Make `data` the content of the file `path`, creating missing folders.

    Readers see the old content or the new one, never a part, also after a crash or a power cut: the data goes
    to a new file in the same folder, which is flushed to the disk and then renamed.

    Raises:
        WriteError: it did not work; the old content is whole and the new file removed.
    """
    with open_atomically(path) as file:
        file.write(data)


@contextlib.contextmanager
def open_atomically(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Yield a file whose content becomes that of `path` as `write_atomically` says, once the block ends well.

    If the block raises, nothing happens to `path`. An OSError becomes a WriteError about `path`.

    Raises:
        WriteError: it did not work; the old content is whole and the new file removed.
    """
    path = Path(path)
    # Short and independent of the name, which may be as long as file systems allow.
    temporary = path.parent / f".difftrace-{secrets.token_hex(8)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _write_error(path, error) from error
    _sync_folder(path.parent)


def replace_quickly(path: str | os.PathLike[str], data: bytes) -> None:
    """Do the same without waiting for the disk: whole also if this process dies, not if the machine does.

    Raises:
        WriteError: it did not work; the old content is whole.
    """
    path = Path(path)
    temporary = path.parent / f".difftrace-{secrets.token_hex(8)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _write_error(path, error) from error


def write_all_atomically(contents: Mapping[Path, bytes]) -> None:
    """Write several files: every one is on the disk under a temporary name before the first takes its place.

    Raises:
        WriteError: it did not work; unless the system failed between two renamings, nothing was changed.
    """
    staged: list[tuple[Path, Path]] = []
    path = Path()
    try:
        for path, data in contents.items():
            temporary = path.parent / f".difftrace-{secrets.token_hex(8)}.tmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            staged.append((temporary, path))
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for temporary, path in staged:
            temporary.replace(path)
    except BaseException as error:
        for temporary, _ in staged:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _write_error(path, error) from error
        raise
    for folder in {path.parent for path in contents}:
        _sync_folder(folder)


def _write_error(path: Path, error: OSError) -> WriteError:
    advice = _ADVICE.get(error.errno or 0, "see to its folder")
    reason = printable(error.strerror or str(error))
    return WriteError(
        f"{printable(str(path))}: could not be written ({reason}); nothing was changed."
        f" To go on, {advice} and run the command again"
    )


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself durable where folders can be opened; elsewhere (Windows) the system sees to
    it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
