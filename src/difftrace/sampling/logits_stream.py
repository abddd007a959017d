"""All logits of a run, written to a file while the run goes on."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from difftrace.core.errors import SamplerError
from difftrace.core.logits_codec import Lossless, Method
from difftrace.core.logits_dtypes import DTYPES, Bits
from difftrace.core.logits_layout import LogitsLayout, check_method
from difftrace.core.logits_reference import LogitsReference, RecordedLogits, check_name
from difftrace.core.logits_writer import LogitsWriter, write_logits
from difftrace.sampling.arrival import SENDING
from difftrace.sampling.step import Step

# Buffers on the host, and bytes of each: a step of LLaDA-8B with 128 positions in bfloat16 takes one.
_BUFFERS: Final = 4
_BUFFER_BYTES: Final = 32 << 20


@dataclass(frozen=True)
class LogitsTarget:
    """Where a run's logits go.

    Attributes:
        path: the file, whose name ends in .logits.
        method: how they are kept.

    Raises:
        LogitsError: the name ends in something else.
    """

    path: Path
    method: Method = field(default_factory=Lossless)

    def __post_init__(self) -> None:
        check_name(self.path.name)


@dataclass(frozen=True)
class _Piece:
    """Rows on their way to the host: in `buffer`, once `copied`."""

    buffer: Tensor
    rows: int
    copied: torch.cuda.Event | None


class _Abandoned(Exception):  # noqa: N818 - no error, but the way out of a file that is not to be
    pass


class LogitsStream:
    """Copies what the model returned at every step into a few buffers, which a thread encodes and writes.

    The host never waits for the device but where all buffers are full: then for the oldest of them to be written, which
    is what bounds the memory. It takes four buffers of up to 32 MiB, or of one chunk where that is larger.

    A context: the thread ends with it. The file appears in `finish`, or never.
    """

    def __init__(self, target: LogitsTarget, first: Tensor, steps: int) -> None:
        """Record `steps` steps of a batch whose rows have their first real token at canvas position `first` [B]."""
        self._target = target
        # Before the first forward this waits for the mask alone.
        self._starts: list[int] = first.tolist()
        self._steps = steps
        self._layout: LogitsLayout | None = None
        self._shape = torch.Size()
        self._free: queue.SimpleQueue[Tensor] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        self._complete = False
        self._thread: threading.Thread | None = None
        self._digest: str | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> LogitsStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def add(self, step: Step) -> None:
        """Take the run's next step, of the shape of the first.

        Raises:
            SamplerError: logits of this dtype or shape cannot be recorded.
            WriteError: the file cannot be written.
        """
        logits = step.logits.detach().reshape(step.passes, len(self._starts), *step.logits.shape[1:])
        layout = self._layout or self._begin(logits)
        if logits.dtype != getattr(torch, layout.dtype) or logits.shape != self._shape:
            raise SamplerError(f"the logits change to {logits.dtype} {list(step.logits.shape)} during the run")
        for row, start in enumerate(self._starts):
            for number in range(layout.passes):
                self._send(logits[number, row, start:])

    def finish(self) -> RecordedLogits:
        """Wait for all to be written, and return the file.

        Raises:
            SamplerError: there was no step.
            WriteError: the file cannot be written.
        """
        if self._layout is None:
            raise SamplerError("no step was recorded: a run without steps has no logits")
        self._complete = True
        self._stop()
        self._check()
        assert self._digest is not None
        path = self._target.path
        return RecordedLogits(path, LogitsReference(path.name, self._digest, self._layout, self._target.method))

    def _begin(self, logits: Tensor) -> LogitsLayout:
        name = str(logits.dtype).removeprefix("torch.")
        if name not in DTYPES:
            raise SamplerError(f"logits of {name} cannot be recorded, only those of {', '.join(DTYPES)}")
        length = logits.shape[2]
        layout = LogitsLayout(
            name, self._steps, logits.shape[0], logits.shape[3], tuple(length - start for start in self._starts)
        )
        check_method(layout, self._target.method)
        self._layout, self._shape = layout, logits.shape
        rows = min(length, self._buffer_rows(layout))
        pinned = logits.device.type in SENDING
        for _ in range(_BUFFERS):
            self._free.put(torch.empty((rows, layout.vocabulary), dtype=logits.dtype, pin_memory=pinned))
        self._thread = threading.Thread(target=self._write, args=(layout,), name="difftrace-logits", daemon=True)
        self._thread.start()
        return layout

    @staticmethod
    def _buffer_rows(layout: LogitsLayout) -> int:
        """Return as many rows as make whole chunks."""
        chunk = layout.rows * layout.vocabulary * layout.words.size
        return layout.rows * max(1, _BUFFER_BYTES // chunk)

    def _send(self, logits: Tensor) -> None:
        """Copy rows [L, V] to the host and leave them to the thread."""
        start = 0
        while start < len(logits):
            self._check()
            # Comes back after an error too, so that this never waits for ever.
            buffer = self._free.get()
            rows = min(len(buffer), len(logits) - start)
            # Elsewhere nobody could tell when the copy is done.
            sends = logits.device.type in SENDING
            buffer[:rows].copy_(logits[start : start + rows], non_blocking=sends)
            copied = None
            if sends:
                copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
                copied.record(torch.cuda.current_stream(logits.device))
            self._full.put(_Piece(buffer, rows, copied))
            start += rows

    def _write(self, layout: LogitsLayout) -> None:
        """Run in the thread: write every piece, or after an error none."""
        pieces = iter(self._full.get, None)
        try:
            with write_logits(self._target.path, layout, self._target.method) as writer:
                for piece in pieces:
                    self._write_piece(writer, piece)
                if not self._complete:
                    raise _Abandoned
                self._digest = writer.finish()
        except _Abandoned:
            return
        except BaseException as error:
            self._error = error
            # An iterator that has ended stays so.
            for piece in pieces:
                self._free.put(piece.buffer)

    def _write_piece(self, writer: LogitsWriter, piece: _Piece) -> None:
        try:
            if piece.copied is not None:
                piece.copied.synchronize()
            writer.add(_words(piece.buffer[: piece.rows]))
        finally:
            self._free.put(piece.buffer)

    def _stop(self) -> None:
        if self._thread is not None:
            self._full.put(None)
            self._thread.join()
            self._thread = None

    def _check(self) -> None:
        if self._error is not None:
            raise self._error


def _words(values: Tensor) -> Bits:
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()]
    array: np.ndarray[Any, np.dtype[Any]] = values.view(integers).numpy()
    return array.view(f"<u{values.element_size()}")
