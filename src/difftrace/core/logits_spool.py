"""All logits of a captured request, encoded and written to a file of their own while its loop goes on."""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import tempfile
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from difftrace.core.errors import EngineError
from difftrace.core.limits import MAX_LOGITS_CHUNKS, MAX_STEPS
from difftrace.core.logits_buffers import Buffer, Rows, buffer_for, rows_of, send
from difftrace.core.logits_codec import Lossless, Method
from difftrace.core.logits_layout import LogitsLayout
from difftrace.core.logits_reference import SUFFIX, LogitsReference
from difftrace.core.logits_writer import LogitsWriter, write_logits

# Buffers on the host, and bytes of each, where a chunk is not larger.
_BUFFERS: Final = 4
_BUFFER_BYTES: Final = 16 << 20


@dataclass(frozen=True)
class LogitsPlan:
    """Where the logits of captured requests go while their loops run, and how they are kept.

    Attributes:
        folder: created where missing.
        method: exactly, or within a bound.
        kept: whether at all: an engine that stores nothing has no use for them.
    """

    folder: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    method: Method = field(default_factory=Lossless)
    kept: bool = True


class CapturedLogits:
    """The file of one request's logits, which is deleted with this object, at the latest when the program ends.

    Whoever wants to keep the file moves it away.

    Attributes:
        path: the file.
        reference: what it holds; its steps are those that came with logits.
        steps: which these are, ascending.
    """

    def __init__(self, path: Path, reference: LogitsReference, steps: tuple[int, ...]) -> None:
        self.path = path
        self.reference = reference
        self.steps = steps
        self._end = weakref.finalize(self, _delete, path, os.getpid())

    def discard(self) -> None:
        """Delete the file, if it still lies there."""
        self._end()


@dataclass(frozen=True)
class _Piece:
    """Rows on their way to the host: in `buffer`, once `copied`."""

    buffer: Buffer
    rows: int
    copied: Any


class _Abandoned(Exception):  # noqa: N818 - no error, but the way out of a file that is not to be
    pass


@dataclass
class _Work:
    """What the loop and the thread share; the thread ends with the None in `full`.

    Attributes:
        free: buffers to fill; what is in `full` comes back here, after an error too.
        full: what is to be written.
        steps: how many came; None where nothing is to be kept.
        digest: of the complete file.
        error: what ended the writing.
    """

    free: queue.SimpleQueue[Buffer] = field(default_factory=queue.SimpleQueue)
    full: queue.SimpleQueue[_Piece | None] = field(default_factory=queue.SimpleQueue)
    steps: int | None = None
    digest: str | None = None
    error: BaseException | None = None


class LogitsSpool:
    """Copies what the model returned at each step into a few buffers, which a thread encodes and writes.

    The loop waits for no device, but where all buffers are full: then for the oldest of them to be written, which is
    what bounds the memory, to four buffers of 16 MiB, or of one chunk where that is larger, beside what encoding takes.

    Args:
        plan: where to and how.
        announced: steps of the run, 0 where that is not known.
    """

    def __init__(self, plan: LogitsPlan, announced: int) -> None:
        self._method = plan.method
        self._path = plan.folder / f"{secrets.token_hex(16)}{SUFFIX}"
        self._announced = announced
        self._layout: LogitsLayout | None = None
        self._steps: list[int] = []
        self._work = _Work()
        self._thread: threading.Thread | None = None
        self._end: weakref.finalize[[_Work, threading.Thread], LogitsSpool] | None = None

    def add(self, step: int, logits: Any) -> None:
        """Take the logits of `step`, [L, V] or [1, L, V], of the shape and dtype of the first ones.

        Raises:
            EngineError: they have another shape or dtype.
            LogitsError: logits of that dtype or shape cannot be recorded.
            WriteError: the file cannot be written.
        """
        rows = rows_of(f"logits of step {step}", logits)
        layout = self._layout or self._begin(rows)
        expected = (layout.dtype, (layout.lengths[0], layout.vocabulary))
        if (rows.dtype, rows.shape) != expected:
            raise EngineError(
                f"logits of step {step} are {rows.dtype} {list(rows.shape)}, those of step {self._steps[0]}"
                f" {expected[0]} {list(expected[1])}; hand over the same positions at each step"
            )
        self._steps.append(step)
        for start in range(0, layout.lengths[0], self._rows):
            stop = min(start + self._rows, layout.lengths[0])
            self._check()
            # Comes back after an error too, so that this never waits for ever.
            buffer = self._work.free.get()
            self._work.full.put(_Piece(buffer, stop - start, send(rows, start, stop, buffer)))

    def finish(self) -> CapturedLogits | None:
        """Wait for all to be written, and return the file; None where no step came with logits.

        Raises:
            WriteError: the file cannot be written.
        """
        if self._layout is None:
            return None
        self._work.steps = len(self._steps)
        self._stop()
        self._check()
        if self._work.digest is None:
            raise EngineError("the process was forked while logits were captured; end the capture where it began")
        layout = replace(self._layout, steps=len(self._steps))
        reference = LogitsReference(self._path.name, self._work.digest, layout, self._method)
        return CapturedLogits(self._path, reference, tuple(self._steps))

    def discard(self) -> None:
        """Leave no file."""
        self._stop()

    def _begin(self, rows: Rows) -> LogitsLayout:
        length, vocabulary = rows.shape
        one = LogitsLayout(rows.dtype, 1, 1, vocabulary, (length,))
        steps = self._announced or min(MAX_STEPS, MAX_LOGITS_CHUNKS // one.num_chunks)
        layout = replace(one, steps=steps)
        chunk = layout.rows * vocabulary * layout.words.size
        self._rows = layout.rows * max(1, _BUFFER_BYTES // chunk)
        for _ in range(_BUFFERS):
            self._work.free.put(buffer_for(rows, min(length, self._rows)))
        arguments = (self._path, layout, self._method, self._work)
        # It knows nothing of this object, whose end is its own.
        self._thread = threading.Thread(target=_write, args=arguments, name="difftrace-logits", daemon=True)
        self._thread.start()
        self._end = weakref.finalize(self, _stop, self._work, self._thread)
        self._layout = layout
        return layout

    def _stop(self) -> None:
        if self._end is not None:
            self._end()

    def _check(self) -> None:
        if self._work.error is not None:
            raise self._work.error


def _stop(work: _Work, thread: threading.Thread) -> None:
    work.full.put(None)
    thread.join()


def _write(path: Path, layout: LogitsLayout, method: Method, work: _Work) -> None:
    """Run in the thread: write every piece, or after an error none."""
    pieces = iter(work.full.get, None)
    try:
        with write_logits(path, layout, method) as writer:
            for piece in pieces:
                _write_piece(writer, piece, work)
            if work.steps is None:
                raise _Abandoned
            digest = writer.finish(work.steps)
        work.digest = digest
    except _Abandoned:
        return
    except BaseException as error:
        work.error = error
        _return_buffers(pieces, work)


def _write_piece(writer: LogitsWriter, piece: _Piece, work: _Work) -> None:
    try:
        if piece.copied is not None:
            piece.copied.synchronize()
        writer.add(piece.buffer.words[: piece.rows])
    finally:
        work.free.put(piece.buffer)


def _return_buffers(pieces: Iterator[_Piece], work: _Work) -> None:
    # An iterator that has ended stays so.
    for piece in pieces:
        work.free.put(piece.buffer)


def _delete(path: Path, process: int) -> None:
    # A forked child has a copy of the object, but not the file.
    if os.getpid() == process:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
