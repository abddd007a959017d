"""The files of stored requests' logits: one for each, in a folder beside the store.

A file's name is made of digests of the request id and of the logits, so that it is safe whatever the id is, and so that
a request that is refused never touches the file of the one that has its id. The record says what the file holds, in the
metadata `logits.digest` and, where not every step from 0 on came with logits, `logits.steps`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from difftrace.core.atomic import move_atomically
from difftrace.core.errors import EngineError, FormatError, NotStoredError, StoreError
from difftrace.core.logits_codec import Lossless, Method
from difftrace.core.logits_dtypes import Bits, Floats
from difftrace.core.logits_file import LogitsFile, open_logits
from difftrace.core.logits_reference import SUFFIX
from difftrace.core.logits_spool import CapturedLogits
from difftrace.core.logits_writer import write_logits
from difftrace.core.recording import JsonScalar
from difftrace.core.text import printable
from difftrace.store import Record, Store

FOLDER: Final = "logits"
"""Name of the folder, beside the store."""

DIGEST: Final = "logits.digest"
STEPS: Final = "logits.steps"

# Hex digits of each of the two digests in a file's name.
_NAMED: Final = 32


@dataclass(frozen=True)
class StoredLogits:
    """The logits of a stored request; what is read is checked against the digest in its record.

    Attributes:
        file: the file; its steps are those of `steps`.
        steps: the steps that came with logits, ascending.
    """

    file: LogitsFile
    steps: tuple[int, ...]

    def __getitem__(self, step: int) -> Floats:
        """Return what the model returned at `step` of the run, [L, V]; bfloat16 as float32, which holds it exactly.

        Raises:
            IndexError: no logits were captured at that step.
            FormatError: the file is not what was stored.
        """
        return self.file.layout.words.values(self.bits(step))

    def bits(self, step: int) -> Bits:
        """Return the same as words of the model's dtype."""
        if step not in self.steps:
            raise IndexError(f"no logits were captured at step {step}")
        bits: Bits = self.file.rows[0].bits(self.steps.index(step))[0]
        return bits


def metadata_of(digest: str, steps: tuple[int, ...]) -> dict[str, JsonScalar]:
    """Return what a record says of its logits."""
    told: dict[str, JsonScalar] = {DIGEST: digest}
    if steps != tuple(range(len(steps))):
        told[STEPS] = json.dumps(steps, separators=(",", ":"))
    return told


def path_of(folder: Path, request_id: str, digest: str) -> Path:
    """Return where the logits of `request_id` with this digest belong."""
    return folder / f"{_of_id(request_id)}-{digest.removeprefix('sha256:')[:_NAMED]}{SUFFIX}"


def in_method(captured: CapturedLogits, folder: Path, method: Method) -> CapturedLogits:
    """Return logits as `method` keeps them: those given, or, where they are exact and it is not, their rounding.

    Raises:
        EngineError: they were captured within another bound.
        WriteError: the file cannot be written.
    """
    reference = captured.reference
    if reference.method == method:
        return captured
    if not isinstance(reference.method, Lossless):
        raise EngineError(
            f"the logits were captured by {reference.method}, but this engine keeps them by {method}; make the engine"
            " before the capture, with the same config"
        )
    path = folder / f"{secrets.token_hex(16)}{SUFFIX}"
    exact = open_logits(captured.path)
    with write_logits(path, reference.layout, method) as writer:
        for step in range(reference.layout.steps):
            for block in exact.rows[0].blocks(step):
                writer.add(block.bits)
        writer.finish()
    return CapturedLogits(path, open_logits(path).reference, captured.steps)


def put(captured: CapturedLogits, target: Path) -> None:
    """Move the file of `captured` to `target`, where nothing or a file of the same logits is.

    Raises:
        EngineError: the file is no longer there: it was stored already, or deleted.
        WriteError: it cannot be moved.
    """
    if captured.path.exists():
        # Younger than whatever `remove_unused` is looking for at this moment.
        os.utime(captured.path)
        move_atomically(captured.path, target)
        return
    try:
        if open_logits(target).digest == captured.reference.digest:
            return
    except FormatError:
        pass
    raise EngineError(f"{printable(str(captured.path))}: the captured logits are no longer there; capture them again")


def open_stored(folder: Path, record: Record) -> StoredLogits:
    """Return the logits of `record`.

    Raises:
        EngineError: it has none.
        FormatError: their file is missing, damaged, or not the one that was stored.
    """
    digest = record.metadata.get(DIGEST)
    if not isinstance(digest, str):
        raise EngineError(
            f"no logits were stored of '{printable(record.request_id)}'; they are with CaptureGranularity.FULL_LOGITS,"
            " where capture_step() is given them"
        )
    path = path_of(folder, record.request_id, digest)
    file = open_logits(path)
    if file.digest != digest:
        raise FormatError(f"{printable(str(path))}: holds other logits than were stored; put the right file back")
    return StoredLogits(file, _steps(record.metadata, file, path))


def problem_of(folder: Path, store: Store, record: Record) -> str | None:
    """Return what is wrong with the logits of `record`, all of which are read; None without any, or if all is well."""
    digest = record.metadata.get(DIGEST)
    if not isinstance(digest, str):
        return None
    try:
        open_stored(folder, record).file.check()
    except FormatError as error:
        # Unless the request was deleted meanwhile, and its logits with it.
        return None if is_used(store, record.request_id, digest) is False else f"its logits: {error}"
    return None


def is_used(store: Store, request_id: str, digest: str) -> bool | None:
    """Return whether the record of `request_id` is one with these logits; None where the store cannot tell."""
    try:
        return store.get(request_id).metadata.get(DIGEST) == digest
    except NotStoredError:
        return False
    except StoreError:
        return None


def remove(folder: Path, request_id: str) -> None:
    """Delete the logits of a request that is no longer stored, if it has any."""
    for path in folder.glob(f"{_of_id(request_id)}-*{SUFFIX}"):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def remove_unused(folder: Path, store: Store, older_than: float) -> int:
    """Delete the files that no record refers to and that were not written to for `older_than` seconds.

    Return how many there were.
    """
    if not folder.is_dir():
        return 0
    latest = time.time() - older_than
    # Listed before the records, so that what is stored meanwhile is not among them.
    found = [path for path in folder.iterdir() if path.suffix in (SUFFIX, ".tmp") and path.lstat().st_mtime <= latest]
    used = {
        path_of(folder, entry.request_id, digest)
        for entry in store.entries()
        if isinstance(digest := entry.metadata.get(DIGEST), str)
    }
    unused = [path for path in found if path not in used]
    for path in unused:
        path.unlink(missing_ok=True)
    return len(unused)


def _of_id(request_id: str) -> str:
    return hashlib.sha256(request_id.encode("utf-8")).hexdigest()[:_NAMED]


def _steps(metadata: Mapping[str, JsonScalar], file: LogitsFile, path: Path) -> tuple[int, ...]:
    text = metadata.get(STEPS)
    if text is None:
        return tuple(range(file.layout.steps))
    try:
        steps = json.loads(str(text))
    except ValueError:
        steps = None
    if not isinstance(steps, list) or len(steps) != file.layout.steps or any(type(step) is not int for step in steps):
        raise FormatError(f"{printable(str(path))}: the record does not say which steps its logits are of")
    return tuple(steps)
