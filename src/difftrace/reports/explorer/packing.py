"""How a check's runs travel in the page: compressed, and unpacked only when the check is looked at.

A pack is base64 of a zlib stream of

- the length of the header, 4 bytes, little-endian
- the header, JSON in UTF-8; `difftrace.reports.explorer.details` says what it holds
- the columns it names as `[name, type, count]`, one after the other

A column's type is `u1`, `u2` or `u4`, unsigned, or `bf`: bfloat16, the upper half of a float32, rounded to within one
part in 64, which is what colours need and compresses well. Where more matters the header has the exact values. The
lowest bytes of all numbers of a column come first, then the next ones: like stands by like, which compresses better.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from difftrace.core.text import printable

Array = npt.NDArray[Any]

# From here on a code of its own takes less room than it costs.
_LARGE: Final = 256


class Columns:
    """Columns of one pack, in the order in which they were added."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def integers(self, name: str, values: Array) -> list[Any]:
        """Add a column of integers that are at least 0; return its entry for the header."""
        width = next(width for width in (1, 2, 4) if values.max(initial=0) < 256**width)
        self._add(values.astype(f"<u{width}"))
        return [name, f"u{width}", int(values.size)]

    def floats(self, name: str, values: Array) -> list[Any]:
        """Add a column of floating-point numbers, NaN and infinities included; return its entry for the header."""
        self._add(_rounded(values).astype("<u2"))
        return [name, "bf", int(values.size)]

    def pack(self, header: Mapping[str, Any]) -> str:
        """Return `header`, its texts made printable, and the columns as text of base64's alphabet."""
        head = json.dumps(inert(header), separators=(",", ":"), allow_nan=False).encode("ascii")
        return base64.b64encode(_compressed([struct.pack("<I", len(head)) + head, *self._parts])).decode("ascii")

    def _add(self, values: Array) -> None:
        bytes_of_each = values.view(np.uint8).reshape(values.size, values.itemsize)
        self._parts += [bytes_of_each[:, index].tobytes() for index in range(values.itemsize)]


def inert(value: Any) -> Any:
    """Return a JSON value with every text in it, keys included, made printable."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(key): inert(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [inert(one) for one in value]
    return value


def _compressed(parts: Sequence[bytes]) -> bytes:
    """Return a zlib stream of `parts`, with another code for each of the large ones, which have little in common."""
    stream = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9)
    data = []
    for part in parts:
        data.append(stream.compress(part))
        if len(part) >= _LARGE:
            data.append(stream.flush(zlib.Z_SYNC_FLUSH))
    return b"".join((*data, stream.flush()))


def _rounded(values: Array) -> Array:
    """Return the upper half of the bits of `values` rounded to 6 binary digits, ties away from zero; NaN stays NaN."""
    bits = values.astype("<f4").view("<u4")
    rounded = (bits.astype(np.uint64) + 0x20000) >> 18 << 2
    # Rounding up must make no infinity of the largest finite numbers, and NaN has no digits to round.
    finite = np.minimum(rounded & 0x7FFC, 0x7F7C) | (bits >> 31 << 15)
    special = np.where(np.isnan(values), 0x7FC0, bits >> 16)
    return np.where(np.isfinite(values), finite, special)
