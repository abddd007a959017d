"""Reading a file of logits, a step or a chunk at a time.

    logits = open_logits("test_sum.logits")
    logits.rows[0][3]           # what the model returned at step 3 of the first sequence, [passes, L, V]
    logits.rows[0].top(3)       # of a file that keeps the largest few alone

No file stays open in between: each access reads what it needs and checks it against the digests of the index.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from difftrace.core.errors import FormatError, LogitsError
from difftrace.core.logits_codec import DenseCodec, Method, TopCodec, codec_of
from difftrace.core.logits_dtypes import Bits, Floats
from difftrace.core.logits_layout import HEADER, INDEX_ENTRY, MAGIC, LogitsLayout, header_size, read_header
from difftrace.core.logits_reference import LogitsReference
from difftrace.core.logits_topk import TopK
from difftrace.core.text import printable

_INDEX: Final = np.dtype([("size", "<u4"), ("digest", "V32")])


@dataclass(frozen=True, eq=False)
class Block:
    """Some positions of one pass of a step.

    Attributes:
        number: the pass.
        start: the first position.
        bits: their logits' words, [positions, V].
    """

    number: int
    start: int
    bits: Bits


@dataclass(frozen=True, eq=False)
class LogitsFile:
    """A file of logits whose header and index were read and checked, and no more.

    Attributes:
        path: the file.
        layout: what it holds.
        method: how.
        digest: `sha256:` and 64 hex digits, the same for the same logits.
    """

    path: Path
    layout: LogitsLayout
    method: Method
    digest: str
    _index: np.ndarray[tuple[int], np.dtype[np.void]] = field(repr=False)
    _offsets: np.ndarray[tuple[int], np.dtype[np.int64]] = field(repr=False)

    @property
    def rows(self) -> tuple[SequenceLogits, ...]:
        """The logits of each sequence."""
        return tuple(SequenceLogits(self, number) for number in range(len(self.layout.lengths)))

    @property
    def reference(self) -> LogitsReference:
        """What a baseline says of it."""
        return LogitsReference(self.path.name, self.digest, self.layout, self.method)

    @property
    def digests(self) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """The SHA-256 of each chunk's content, in the file's order."""
        digests: np.ndarray[tuple[int], np.dtype[np.void]] = self._index["digest"]
        return digests

    def check(self) -> None:
        """Read everything; raises FormatError where a chunk is not what was recorded."""
        codec = codec_of(self.method, self.layout.words)
        for sequence in self.rows:
            for step in range(self.layout.steps):
                for _ in sequence.decoded(step, codec):
                    pass


@dataclass(frozen=True, eq=False)
class SequenceLogits:
    """The logits of one sequence, of which nothing is in memory; `len` is the number of steps.

    Every access raises IndexError for a step that there is not, FormatError where the file is not what was recorded,
    and LogitsError where it does not hold what was asked for.
    """

    file: LogitsFile
    sequence: int

    def __len__(self) -> int:
        return self.file.layout.steps

    def __getitem__(self, step: int) -> Floats:
        """Return what the model returned at `step`, [passes, L, V]; bfloat16 as float32, which holds it exactly."""
        return self.file.layout.words.values(self.bits(step))

    def __iter__(self) -> Iterator[Floats]:
        return (self[step] for step in range(len(self)))

    def bits(self, step: int) -> Bits:
        """Return the same as words of the model's dtype."""
        layout = self.file.layout
        shape = (layout.passes, layout.lengths[self.sequence], layout.vocabulary)
        array = np.empty(shape, dtype=layout.words.word)
        for block in self.blocks(step):
            array[block.number, block.start : block.start + len(block.bits)] = block.bits
        return array

    def blocks(self, step: int) -> Iterator[Block]:
        """Yield the same a few MiB at a time."""
        codec = self._dense()
        for number, start, chunk in self.decoded(step, codec):
            assert not isinstance(chunk, TopK)
            yield Block(number, start, chunk)

    def top(self, step: int) -> TopK:
        """Return the largest logits of `step`: ids and bits [passes, L, k], logsumexp [passes, L]."""
        codec = codec_of(self.file.method, self.file.layout.words)
        if not isinstance(codec, TopCodec):
            raise LogitsError(f"{printable(str(self.file.path))}: holds all logits: index it, and choose among them")
        chunks = [chunk for _, _, chunk in self.decoded(step, codec) if isinstance(chunk, TopK)]
        shape = (self.file.layout.passes, self.file.layout.lengths[self.sequence])
        ids, bits, sums = (
            np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("ids", "bits", "logsumexp")
        )
        return TopK(ids.reshape(*shape, -1), bits.reshape(*shape, -1), sums.reshape(shape))

    def decoded(self, step: int, codec: DenseCodec | TopCodec) -> Iterator[tuple[int, int, Bits | TopK]]:
        """Yield pass, first position and content of each chunk of `step`."""
        layout = self.file.layout
        # An index that is no integer is refused as by a list.
        step = range(layout.steps)[step]
        chunk = step * layout.chunks_before(len(layout.lengths)) + layout.chunks_before(self.sequence)
        source = printable(str(self.file.path))
        try:
            with self.file.path.open("rb") as file:
                for number, start, stop in layout.places(self.sequence):
                    yield number, start, self._chunk(file, chunk, (stop - start, layout.vocabulary), codec)
                    chunk += 1
        except OSError as error:
            raise FormatError(f"{source}: cannot be read ({printable(str(error))})") from error
        except FormatError as error:
            raise FormatError(f"{source}: step {step}, sequence {self.sequence}: {error}") from None

    def _dense(self) -> DenseCodec:
        codec = codec_of(self.file.method, self.file.layout.words)
        if isinstance(codec, TopCodec):
            raise LogitsError(f"{printable(str(self.file.path))}: holds the largest logits alone: ask for top(step)")
        return codec

    def _chunk(self, file: BinaryIO, chunk: int, shape: tuple[int, int], codec: DenseCodec | TopCodec) -> Bits | TopK:
        file.seek(int(self.file._offsets[chunk]))
        entry = self.file._index[chunk]
        payload = file.read(int(entry["size"]))
        content: Bits | TopK
        if isinstance(codec, TopCodec):
            content = codec.decode(payload, shape)
            digest = codec.digest(content)
        else:
            content = codec.decode(payload, shape)
            digest = codec.digest(content)
        if digest != bytes(entry["digest"]):
            raise FormatError("the logits do not match their digest: the file was changed after it was recorded")
        return content


def open_logits(path: str | os.PathLike[str]) -> LogitsFile:
    """Return the file of logits `path`, of which header and index are read.

    Raises:
        FormatError: one line naming the file: it cannot be read, is no such file, or is not complete.
    """
    path = Path(path)
    source = printable(str(path))
    try:
        with path.open("rb") as file:
            return _opened(path, file)
    except (OSError, ValueError) as error:
        raise FormatError(f"{source}: cannot be read ({printable(str(error))})") from error
    except FormatError as error:
        raise FormatError(f"{source}: {error}") from None


def _opened(path: Path, file: BinaryIO) -> LogitsFile:
    start = file.read(HEADER.size)
    header = start + file.read(header_size(start) - len(start))
    layout, method = read_header(header)
    end = file.seek(0, os.SEEK_END)
    index_start = end - len(MAGIC) - layout.num_chunks * INDEX_ENTRY.size
    if index_start < len(header):
        raise FormatError("is not complete: it is shorter than its header announces")
    file.seek(index_start)
    index = np.frombuffer(file.read(layout.num_chunks * INDEX_ENTRY.size), dtype=_INDEX)
    offsets = len(header) + np.concatenate(([0], np.cumsum(index["size"], dtype=np.int64)))
    if file.read() != MAGIC or int(offsets[-1]) != index_start:
        raise FormatError("is not complete: its index is missing or does not fit its size")
    digest = hashlib.sha256(header + np.ascontiguousarray(index["digest"]).tobytes())
    return LogitsFile(path, layout, method, f"sha256:{digest.hexdigest()}", index, offsets)
