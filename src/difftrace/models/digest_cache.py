"""Weights digests remembered by the identity of their files, so that a big checkpoint is read once, not per run."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from difftrace.core.atomic import write_atomically
from difftrace.core.cache_folder import cache_folder
from difftrace.core.errors import FormatError, WriteError
from difftrace.core.schemas import violation
from difftrace.core.strict_json import loads
from difftrace.models.weights import Checkpoint

_FORMAT: Final = "difftrace-weights-digest"
_VERSION: Final = "0.1"
# Smaller checkpoints are read sooner than the validator of the cache is imported.
_WORTH_REMEMBERING: Final = 1 << 24
# File systems stamp times as coarsely as this (FAT), so that a second change within it would leave no trace.
_SETTLED_NS: Final = 2_000_000_000


@dataclass(frozen=True)
class _FileIdentity:
    """What tells a file from one that took its place; times in nanoseconds.

    `ctime_ns` (the last change of the inode) moves even where a copying tool puts the modification time back.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


def remembered_digest(checkpoint: Checkpoint) -> str:
    """Return `checkpoint.digest()`, read from the user's cache where the files are the ones it was computed from.

    An entry counts only while every file has the path (links resolved), size, times and inode it had then. Files
    changed within the last two seconds are neither looked up nor remembered. A cache that is missing, damaged or
    cannot be written costs the reading of the weights and nothing else.
    """
    folder, files = cache_folder(), _identities(checkpoint)
    if folder is None or sum(file.size for file in files) < _WORTH_REMEMBERING or not _settled(files):
        return checkpoint.digest()
    # Named by the paths alone: a changed checkpoint overwrites its old entry instead of leaving it behind.
    name = hashlib.sha256(json.dumps([file.path for file in files]).encode()).hexdigest()
    entry = folder / "weights" / f"{name}.json"
    known = _read(entry, files)
    if known is not None:
        return known
    digest = checkpoint.digest()
    if _identities(checkpoint) == files:
        with suppress(WriteError):
            write_atomically(entry, _encode(files, digest))
    return digest


def _identities(checkpoint: Checkpoint) -> list[_FileIdentity]:
    """Return who the checkpoint's files are, by path; empty where they cannot be asked, which reading them explains."""
    identities = []
    try:
        for path in sorted({tensor.file.resolve() for tensor in checkpoint.tensors.values()}):
            stat = path.stat()
            times = stat.st_mtime_ns, stat.st_ctime_ns
            identities.append(_FileIdentity(str(path), stat.st_size, *times, stat.st_ino))
    except OSError:
        return []
    return identities


def _settled(files: list[_FileIdentity]) -> bool:
    newest = max(max(file.mtime_ns, file.ctime_ns) for file in files)
    return newest < time.time_ns() - _SETTLED_NS


def _encode(files: list[_FileIdentity], digest: str) -> bytes:
    document = {
        "format": _FORMAT,
        "version": _VERSION,
        "files": [asdict(file) for file in files],
        "digest": digest,
    }
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def _read(entry: Path, files: list[_FileIdentity]) -> str | None:
    """Return the digest in `entry`, or None unless it is whole and about exactly these files."""
    try:
        document = loads(entry.read_bytes())
    except (OSError, FormatError):
        return None
    if violation("weights_digest", document) or document["files"] != [asdict(file) for file in files]:
        return None
    return str(document["digest"])
