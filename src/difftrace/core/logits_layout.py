"""What a file of logits holds, and its header.

A file is the header, the payloads of all chunks, the index and the magic bytes again, which only a complete file ends
with. The index has, for every chunk, the size of its payload (32 bits, little-endian) and the SHA-256 of its content.
The file's digest is the SHA-256 of header and content digests: two files of the same layout and method have the same
digest if and only if they hold the same logits.

Chunks come by step, then by sequence, then by pass, then by position. The header is the magic bytes, the version, the
size of the body (32 bits), its CRC-32, then the body: varints for dtype, method, passes, steps, vocabulary, positions
in a chunk, number of sequences and the length of each, and at the end the method's parameter: a float64 bound, or k as
a varint.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from difftrace.core.errors import FormatError, LogitsError
from difftrace.core.limits import MAX_CANVAS, MAX_LOGITS_CHUNKS, MAX_LOGITS_VOCABULARY, MAX_STEPS
from difftrace.core.logits_codec import Lossless, Lossy, Method, Top, check_end
from difftrace.core.logits_dtypes import DTYPES, LogitsDtype, dtype_named
from difftrace.core.varint import Reader, varint

MAGIC: Final = b"\xd7DTLOGIT"
VERSION: Final = 1
HEADER: Final = struct.Struct("<8sBII")
INDEX_ENTRY: Final = struct.Struct("<I32s")
MOST_HEADER_BYTES: Final = 1 << 20

# Values of a chunk: 2 MiB of bfloat16 compress as well as more do.
_CHUNK_VALUES: Final = 1 << 20
_MOST_SEQUENCES: Final = 1 << 16
_MOST_PASSES: Final = 2
_METHODS: Final = {Lossless: 0, Lossy: 1, Top: 2}


@dataclass(frozen=True)
class LogitsLayout:
    """The shape of a run's logits: [steps, passes, length, vocabulary] for each of its sequences.

    Attributes:
        dtype: name of the model's dtype, "bfloat16".
        steps: denoising steps.
        passes: 1, or 2 under guidance: conditional, then unconditional.
        vocabulary: logits of a position.
        lengths: canvas length of each sequence, without padding.

    Raises:
        LogitsError: logits of this shape or dtype cannot be recorded.
    """

    dtype: str
    steps: int
    passes: int
    vocabulary: int
    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        dtype_named(self.dtype)
        for name, value, most in (
            ("steps", self.steps, MAX_STEPS),
            ("passes", self.passes, _MOST_PASSES),
            ("a vocabulary", self.vocabulary, MAX_LOGITS_VOCABULARY),
            ("sequences", len(self.lengths), _MOST_SEQUENCES),
            ("positions", min(self.lengths, default=0), MAX_CANVAS),
            ("positions", max(self.lengths, default=0), MAX_CANVAS),
        ):
            if not 1 <= value <= most:
                raise LogitsError(f"logits of {value} {name} cannot be recorded; 1 to {most} can")
        if self.num_chunks > MAX_LOGITS_CHUNKS:
            raise LogitsError(f"logits of {self.num_chunks} chunks are more than the limit of {MAX_LOGITS_CHUNKS}")

    @property
    def words(self) -> LogitsDtype:
        """The dtype."""
        return DTYPES[self.dtype]

    @property
    def rows(self) -> int:
        """Positions in a chunk; fewer in the last one of a pass."""
        return max(1, _CHUNK_VALUES // self.vocabulary)

    @property
    def num_chunks(self) -> int:
        """Chunks of the whole run."""
        return self.steps * self.chunks_before(len(self.lengths))

    def chunks_before(self, sequence: int) -> int:
        """Return the number of chunks of a step that precede those of `sequence`."""
        return self.passes * sum(-(-length // self.rows) for length in self.lengths[:sequence])

    def places(self, sequence: int) -> Iterator[tuple[int, int, int]]:
        """Yield (pass, first position, position after the last) of each of a step's chunks of `sequence`."""
        length = self.lengths[sequence]
        for number in range(self.passes):
            for start in range(0, length, self.rows):
                yield number, start, min(start + self.rows, length)


def write_header(layout: LogitsLayout, method: Method) -> bytes:
    """Return the header of a file; raises LogitsError where the method asks for more than the layout has."""
    check_method(layout, method)
    numbers = (
        layout.words.code,
        _METHODS[type(method)],
        layout.passes,
        layout.steps,
        layout.vocabulary,
        layout.rows,
        len(layout.lengths),
        *layout.lengths,
    )
    parameter = b""
    if isinstance(method, Lossy):
        parameter = struct.pack("<d", method.bound)
    elif isinstance(method, Top):
        parameter = varint(method.k)
    body = b"".join(map(varint, numbers)) + parameter
    return HEADER.pack(MAGIC, VERSION, len(body), zlib.crc32(body)) + body


def check_method(layout: LogitsLayout, method: Method) -> None:
    """Raise LogitsError where `method` keeps more logits of a position than there are."""
    if isinstance(method, Top) and method.k > layout.vocabulary:
        raise LogitsError(f"the largest {method.k} logits cannot be recorded of a vocabulary of {layout.vocabulary}")


def header_size(start: bytes) -> int:
    """Return the size of the header that begins with `start`, of HEADER.size bytes; raises FormatError."""
    if len(start) < HEADER.size or start[: len(MAGIC)] != MAGIC:
        raise FormatError("is no file of logits")
    _, version, size, _ = HEADER.unpack(start[: HEADER.size])
    if version != VERSION:
        raise FormatError(f"has version {version}; this version of difftrace reads {VERSION}")
    if size > MOST_HEADER_BYTES:
        raise FormatError(f"announces a header of {size} bytes, more than the limit of {MOST_HEADER_BYTES}")
    return int(HEADER.size + size)


def read_header(header: bytes) -> tuple[LogitsLayout, Method]:
    """Return what a header says; raises FormatError where it is none."""
    if len(header) < header_size(header):
        raise FormatError("ends inside its header")
    body = header[HEADER.size :]
    if zlib.crc32(body) != HEADER.unpack(header[: HEADER.size])[3]:
        raise FormatError("the checksum of its header does not match: its bytes were changed")
    reader = Reader(body, 0, len(body))
    names = {dtype.code: name for name, dtype in DTYPES.items()}
    dtype, method, passes, steps, vocabulary, rows = (reader.varint() for _ in range(6))
    if dtype not in names:
        raise FormatError(f"its dtype is number {dtype}, which there is not")
    lengths = tuple(reader.varint() for _ in range(reader.bounded(_MOST_SEQUENCES, "the number of sequences")))
    try:
        layout = LogitsLayout(names[dtype], steps, passes, vocabulary, lengths)
        kept = _method(method, reader)
        check_method(layout, kept)
    except LogitsError as error:
        raise FormatError(f"its header is wrong: {error}") from None
    if rows != layout.rows:
        raise FormatError(f"its chunks have {rows} positions where they should have {layout.rows}")
    check_end(reader)
    return layout, kept


def _method(number: int, reader: Reader) -> Method:
    if number == _METHODS[Lossless]:
        return Lossless()
    if number == _METHODS[Lossy]:
        start = reader.skip(8)
        (bound,) = struct.unpack("<d", reader.buffer[start : start + 8])
        return Lossy(bound if math.isfinite(bound) else 0.0)
    if number == _METHODS[Top]:
        return Top(reader.varint())
    raise FormatError(f"its method is number {number}, which there is not")
