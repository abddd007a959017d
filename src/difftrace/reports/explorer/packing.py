"""How a check's runs travel in the page: compressed, and unpacked only when the check is looked at.

A pack is base64 of a zlib stream of

- the length of the header, 4 bytes, little-endian
- the header, JSON in UTF-8; `difftrace.reports.explorer.details` says what it holds
- the columns it names as `[name, type, count]`, one after the other

A column's type is `u1`, `u2` or `u4`, unsigned and little-endian, or `bf`: bfloat16, the upper half of a float32 and
good for two digits, which is what colours need. Where more matters the header has the exact values.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from difftrace.core.text import printable

Array = npt.NDArray[Any]


class Columns:
    """Columns of one pack, in the order in which they were added."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def integers(self, name: str, values: Array) -> list[Any]:
        """Add a column of integers that are at least 0; return its entry for the header."""
        width = next(width for width in (1, 2, 4) if values.max(initial=0) < 256**width)
        self._parts.append(values.astype(f"<u{width}").tobytes())
        return [name, f"u{width}", int(values.size)]

    def floats(self, name: str, values: Array) -> list[Any]:
        """Add a column of floating-point numbers, NaN and infinities included; return its entry for the header."""
        self._parts.append(_bfloat16(values).astype("<u2").tobytes())
        return [name, "bf", int(values.size)]

    def pack(self, header: Mapping[str, Any]) -> str:
        """Return `header`, its texts made printable, and the columns as text of base64's alphabet."""
        head = json.dumps(inert(header), separators=(",", ":"), allow_nan=False).encode("ascii")
        data = b"".join((struct.pack("<I", len(head)), head, *self._parts))
        return base64.b64encode(zlib.compress(data, 9)).decode("ascii")


def inert(value: Any) -> Any:
    """Return a JSON value with every text in it, keys included, made printable."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(key): inert(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [inert(one) for one in value]
    return value


def _bfloat16(values: Array) -> Array:
    """Return the bits of `values` rounded to bfloat16, ties away from zero; NaN stays NaN."""
    bits = values.astype("<f4").view("<u4")
    rounded = (bits.astype(np.uint64) + 0x8000) >> 16
    # Rounding up must make no infinity of the largest finite numbers, and NaN has no digits to round.
    finite = np.isfinite(values)
    return np.where(finite, np.minimum(rounded & 0x7FFF, 0x7F7F) | (bits >> 31 << 15), np.where(np.isnan(values), 0x7FC0, bits >> 16))
