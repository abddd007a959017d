"""Writing a file of logits while its run goes on, a chunk in memory at a time."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from difftrace.core.atomic import open_atomically
from difftrace.core.errors import LogitsError
from difftrace.core.logits_codec import Method, codec_of
from difftrace.core.logits_dtypes import Bits
from difftrace.core.logits_layout import INDEX_ENTRY, MAGIC, LogitsLayout, write_header
from difftrace.core.logits_reference import LogitsReference

_MOVED: Final = 4 << 20


class LogitsWriter:
    """Takes the logits of a run in order and puts them into an open file; see `write_logits`."""

    def __init__(self, file: BinaryIO, layout: LogitsLayout, method: Method) -> None:
        self._file = file
        self._layout = layout
        self._method = method
        self._codec = codec_of(method, layout.words)
        self._header = write_header(layout, method)
        file.write(self._header)
        self._index = bytearray()
        self._digests = bytearray()
        # Rows of the chunks of a step, in their order.
        sequences = range(len(layout.lengths))
        self._rows = [stop - start for sequence in sequences for _, start, stop in layout.places(sequence)]
        self._written = 0

    def add(self, bits: Bits) -> None:
        """Take the next rows, [R, V] words of the dtype: by step, sequence, pass, then position.

        A call may end only where a chunk does: every `layout.rows` positions and at the end of a pass.

        Raises:
            LogitsError: it ends elsewhere, is no such array, or there are more rows than the layout has.
        """
        layout = self._layout
        if bits.ndim != 2 or bits.shape[1] != layout.vocabulary or bits.dtype != layout.words.word:
            raise LogitsError(
                f"rows of {layout.vocabulary} words of {layout.dtype} are due, not {bits.dtype} {list(bits.shape)}"
            )
        start = 0
        while start < len(bits):
            if self._written == layout.num_chunks:
                raise LogitsError(f"more logits than the {layout.steps} steps that were announced")
            rows = self._rows[self._written % len(self._rows)]
            if start + rows > len(bits):
                raise LogitsError(f"{len(bits) - start} rows end inside a chunk of {rows}")
            self._add_chunk(bits[start : start + rows])
            start += rows

    def finish(self, steps: int | None = None) -> str:
        """Write the index and return the digest.

        Args:
            steps: those that came, where the layout announced more of them than there were.

        Raises:
            LogitsError: rows are missing, or there was no step.
        """
        if steps is not None:
            self._shorten(replace(self._layout, steps=steps))
        if self._written < self._layout.num_chunks:
            raise LogitsError(
                f"{self._layout.num_chunks - self._written} of {self._layout.num_chunks} chunks of logits are missing"
            )
        self._file.write(bytes(self._index) + MAGIC)
        return f"sha256:{hashlib.sha256(self._header + self._digests).hexdigest()}"

    def _shorten(self, layout: LogitsLayout) -> None:
        """Put the header of `layout`, of fewer steps, in the place of the first one."""
        old, self._layout, self._header = self._header, layout, write_header(layout, self._method)
        reading, end = len(old), self._file.tell()
        writing = len(self._header)
        if writing < reading:
            # A number of steps that takes fewer bytes: all that follows moves up.
            while reading < end:
                self._file.seek(reading)
                piece = self._file.read(min(_MOVED, end - reading))
                self._file.seek(writing)
                self._file.write(piece)
                reading += len(piece)
                writing += len(piece)
            self._file.truncate()
            end = writing
        self._file.seek(0)
        self._file.write(self._header)
        self._file.seek(end)

    def _add_chunk(self, bits: Bits) -> None:
        payload, digest = self._codec.encode(bits)
        self._file.write(payload)
        self._index += INDEX_ENTRY.pack(len(payload), digest)
        self._digests += digest
        self._written += 1


@contextlib.contextmanager
def write_logits(path: str | os.PathLike[str], layout: LogitsLayout, method: Method) -> Iterator[LogitsWriter]:
    """Yield a writer of the file `path`, which appears once the block ends well and `finish` was called.

    Raises:
        LogitsError: `method` does not go with `layout`.
        WriteError: the file could not be written; a file that was there before is whole.
    """
    with open_atomically(path) as file:
        yield LogitsWriter(file, layout, method)


def save_logits(
    path: str | os.PathLike[str], layout: LogitsLayout, method: Method, sequences: list[Bits]
) -> LogitsReference:
    """Write logits that lie in memory, words [steps, passes, L, V] for each sequence, to the file `path`.

    Raises:
        LogitsError: they do not have the shapes of `layout`, or `method` does not go with it.
        WriteError: the file could not be written; a file that was there before is whole.
    """
    shapes = [(layout.steps, layout.passes, length, layout.vocabulary) for length in layout.lengths]
    if [array.shape for array in sequences] != shapes:
        raise LogitsError(f"logits of the shapes {shapes} are due, not {[array.shape for array in sequences]}")
    with write_logits(path, layout, method) as writer:
        for step in range(layout.steps):
            for array in sequences:
                for rows in array[step]:
                    writer.add(np.ascontiguousarray(rows))
        digest = writer.finish()
    return LogitsReference(Path(path).name, digest, layout, method)
