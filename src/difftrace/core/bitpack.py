"""Integers below a base, packed as digits of that base into a little-endian bit string.

Groups of g digits share `bits(base**g - 1)` bits, at most 57, so that a base that is no power of two wastes
almost nothing (257 values cost 8.14 bits each, not 9) and every group lies inside one unaligned 8-byte
window: unpacking is a gather, a shift and a mask.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from difftrace.core.errors import FormatError

SLACK: Final = 8
"""Bytes that must follow the packed bytes in the buffer given to `unpack`, because windows reach past the
last group."""

_WINDOW_BITS: Final = 57
_CACHED_GROUPS: Final = 1 << 14
_CHUNK: Final = 1 << 14

UInts = npt.NDArray[np.uint64]


@lru_cache(maxsize=512)
def group_shape(base: int) -> tuple[int, int]:
    """Return (digits, bits) of one group: the shortest group among those with the fewest bits per digit."""
    digits, bits = 1, (base - 1).bit_length()
    limit, candidate = base, 1
    while True:
        candidate += 1
        limit *= base
        width = (limit - 1).bit_length()
        if width > _WINDOW_BITS:
            return digits, bits
        if width * digits < bits * candidate:
            digits, bits = candidate, width


def packed_size(count: int, base: int) -> int:
    """Return the bytes that `count` digits of `base` take."""
    if base <= 1:
        return 0
    digits, bits = group_shape(base)
    full, rest = divmod(count, digits)
    last = (int(base**rest) - 1).bit_length() if rest else 0
    return (full * bits + last + 7) // 8


def pack(values: npt.NDArray[np.integer], base: int) -> bytes:
    """Pack `values`, shape [n], each in [0, base), into `packed_size(n, base)` bytes."""
    if base <= 1:
        return b""
    digits, bits = group_shape(base)
    groups = values.astype("<u8") if digits == 1 else _grouped(values, base, digits)
    words = groups.astype("<u8", copy=False).view(np.uint8).reshape(-1, 8)
    # A chunk holds a multiple of 8 groups, so every chunk but the last ends on a byte.
    packed = b"".join(
        np.packbits(
            np.unpackbits(words[start : start + _CHUNK], axis=1, count=bits, bitorder="little"), bitorder="little"
        ).tobytes()
        for start in range(0, len(words), _CHUNK)
    )
    return packed[: packed_size(values.size, base)]


def _grouped(values: npt.NDArray[np.integer], base: int, digits: int) -> UInts:
    padded = np.zeros((-(-values.size // digits), digits), dtype=np.uint64)
    padded.reshape(-1)[: values.size] = values
    groups = np.zeros(len(padded), dtype=np.uint64)
    for column in reversed(range(digits)):
        groups *= np.uint64(base)
        groups += padded[:, column]
    return groups


def unpack(buffer: bytes, offset: int, count: int, base: int) -> UInts:
    """Return `count` digits of `base`, shape [count], from the bytes at `offset`.

    `buffer` must hold `packed_size(count, base) + SLACK` bytes from `offset` on; the caller checks that.

    Raises:
        FormatError: a digit is not below `base`.
    """
    if base <= 1 or count == 0:
        return np.zeros(count, dtype=np.uint64)
    digits, bits = group_shape(base)
    if (digits, bits) == (1, 8):
        return _bytes(buffer, offset, count, base)
    full, rest = divmod(count, digits)
    total = full + (rest > 0)
    starts, shifts = (_windows if total <= _CACHED_GROUPS else _windows.__wrapped__)(total, bits)
    # The window at the last start ends inside the buffer, thanks to the slack.
    words: UInts = np.ndarray((len(buffer) - offset - 7,), "<u8", buffer, offset, (1,))
    groups: UInts = (words.take(starts) >> shifts) & np.uint64((1 << bits) - 1)
    limit = base**digits
    if rest:
        last = int(groups[-1]) & ((1 << (int(base**rest) - 1).bit_length()) - 1)
        if last >= base**rest:
            raise FormatError("a packed value leaves its range")
        groups[-1] = last
    if limit != 1 << bits and int(groups.max()) >= limit:
        raise FormatError("a packed value leaves its range")
    if digits == 1:
        return groups
    values = np.empty((total, digits), dtype=np.uint64)
    divisor = np.uint64(base)
    for column in range(digits - 1):
        np.divmod(groups, divisor, out=(groups, values[:, column]))
    values[:, -1] = groups
    return values.reshape(-1)[:count]


def _bytes(buffer: bytes, offset: int, count: int, base: int) -> UInts:
    """Do the same for digits of a byte each: most of what evidence holds are mantissas and digests, in planes."""
    values = np.frombuffer(buffer, np.uint8, count, offset)
    if base < 1 << 8 and int(values.max()) >= base:
        raise FormatError("a packed value leaves its range")
    return values.astype(np.uint64)


@lru_cache(maxsize=128)
def _windows(groups: int, bits: int) -> tuple[npt.NDArray[np.intp], UInts]:
    """Return the byte where each group's window starts and the bits to drop there, both of shape [groups]."""
    first_bits = np.arange(groups, dtype=np.int64) * bits
    return (first_bits >> 3).astype(np.intp), (first_bits & 7).astype(np.uint64)
