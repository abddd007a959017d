"""Evidence as bytes.

The magic byte, the version, the CRC-32 of the body (little-endian), then the body: the number of events and of
steps as varints, how many rejected candidates each step lists as a column, and the columns of `evidence_columns`
in their order. Of the three columns of rejected candidates only the slots that are filled are there. 32-bit integers
are a column of `columns`; floating-point numbers and 64-bit integers are split into their bytes, and each plane of
bytes, the most significant first, is such a column: signs and exponents repeat and shrink, mantissas and digests are
stored as they are.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from difftrace.core import columns
from difftrace.core.bitpack import SLACK
from difftrace.core.errors import FormatError
from difftrace.core.evidence_columns import LAYOUT, REJECTED, Column, numbers
from difftrace.core.limits import MAX_EVENTS, MAX_EVIDENCE_NUMBERS, MAX_STEPS
from difftrace.core.varint import Reader, varint

MAGIC: Final = 0xE7
VERSION: Final = 1

_HEADER: Final = 6
_LISTED: Final = frozenset({"rejected_positions", "rejected_tokens", "rejected_confidences"})

Array = npt.NDArray[Any]


def encode(fields: Mapping[str, Array]) -> bytes:
    """Return the bytes of valid `fields`, which hold an array for every name of `LAYOUT`."""
    listed = fields["rejected_positions"] >= 0
    parts = [
        varint(fields["top_tokens"].size),
        varint(fields["candidates"].size),
        columns.write(np.count_nonzero(listed, axis=1)),
    ]
    for column in LAYOUT:
        values = fields[column.name]
        parts.append(_write(column, values[listed] if column.name in _LISTED else values.reshape(-1)))
    body = b"".join(parts)
    return bytes((MAGIC, VERSION)) + zlib.crc32(body).to_bytes(4, "little") + body


def decode(data: bytes) -> dict[str, Array]:
    """Return the columns that `encode` wrote, with their types and shapes; the ranges are not all checked.

    Whatever the bytes are, memory stays below about 200 MiB plus a small multiple of `data`.

    Raises:
        FormatError: `data` is not such an encoding.
    """
    if len(data) < _HEADER or data[0] != MAGIC:
        raise FormatError("these bytes are not encoded evidence")
    if data[1] != VERSION:
        raise FormatError(f"the evidence's encoding has version {data[1]}; this version of difftrace reads {VERSION}")
    if zlib.crc32(data[_HEADER:]) != int.from_bytes(data[2:_HEADER], "little"):
        raise FormatError("the checksum of the encoded evidence does not match: its bytes were changed or cut off")
    reader = Reader(data + bytes(SLACK), _HEADER, len(data))
    events = reader.bounded(MAX_EVENTS, "the number of events")
    steps = reader.bounded(MAX_STEPS, "the number of steps")
    if numbers(events, steps) > MAX_EVIDENCE_NUMBERS:
        raise FormatError(f"{numbers(events, steps)} numbers are announced, more than the {MAX_EVIDENCE_NUMBERS}")
    listed = np.arange(REJECTED) < columns.read(reader, steps, REJECTED + 1).astype(np.int64)[:, None]
    fields = {}
    for column in LAYOUT:
        if column.name in _LISTED:
            values = np.full(listed.shape, np.nan if column.number == "<f4" else -1, dtype=column.number)
            values[listed] = _read(reader, column, int(np.count_nonzero(listed)))
        else:
            shape = column.shape(events, steps)
            values = _read(reader, column, int(np.prod(shape))).reshape(shape)
        fields[column.name] = values
    if reader.position != reader.end:
        raise FormatError(f"{reader.end - reader.position} bytes follow the encoded evidence")
    return fields


def _write(column: Column, values: Array) -> bytes:
    if column.number == "<i4":
        return columns.write(values)
    planes = np.ascontiguousarray(values).view(np.uint8).reshape(values.size, values.itemsize)
    return b"".join(columns.write(plane) for plane in planes.T[::-1])


def _read(reader: Reader, column: Column, count: int) -> Array:
    if column.number == "<i4":
        return columns.read(reader, count, column.most + 1).astype(column.number)
    size = np.dtype(column.number).itemsize
    planes = np.empty((count, size), dtype=np.uint8)
    for place in reversed(range(size)):
        planes[:, place] = columns.read(reader, count, 1 << 8)
    return planes.view(column.number).reshape(count)
