"""Unsigned integers of seven bits a byte, least significant first, and a reader that never leaves its
bytes."""

from __future__ import annotations

from typing import Final

from difftrace.core.errors import FormatError

_MOST_BYTES: Final = 9
_SINGLE: Final = tuple(bytes((value,)) for value in range(0x80))


def varint(value: int) -> bytes:
    """Encode `value`, 0 <= value < 2**63."""
    if value <= 0x7F:
        return _SINGLE[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def varint_size(value: int) -> int:
    """Return how many bytes `varint` makes of `value`."""
    return (value.bit_length() + 6) // 7 or 1


class Reader:
    """A position in `buffer`, of which the bytes up to `end` may be consumed."""

    __slots__ = ("buffer", "end", "position")

    def __init__(self, buffer: bytes, position: int, end: int) -> None:
        self.buffer = buffer
        self.position = position
        self.end = end

    def varint(self) -> int:
        """Consume one integer.

        Raises:
            FormatError: the bytes end inside it, or it takes more than nine bytes.
        """
        position = self.position
        if position >= self.end:
            raise FormatError("the bytes end too early")
        byte = self.buffer[position]
        position += 1
        value = byte & 0x7F
        shift = 7
        while byte > 0x7F:
            if position >= self.end or shift >= 7 * _MOST_BYTES:
                raise FormatError("the bytes end inside a number, or the number is too long")
            byte = self.buffer[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
        self.position = position
        return value

    def bounded(self, most: int, what: str) -> int:
        """Consume one integer that must not exceed `most`.

        Raises:
            FormatError: it does, named `what`.
        """
        value = self.varint()
        if value > most:
            raise FormatError(f"{what} is {value}, more than the limit of {most}")
        return value

    def skip(self, size: int) -> int:
        """Consume `size` bytes and return where they start.

        Raises:
            FormatError: fewer are left.
        """
        start = self.position
        if size > self.end - start:
            raise FormatError(f"{size} bytes are announced where {self.end - start} are left")
        self.position = start + size
        return start
