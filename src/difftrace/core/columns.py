"""One column of non-negative integers as bytes, in whichever of five forms is smallest.

A column starts with the varint `base << 3 | form`, every value being below `base`; the reader knows how many
values follow.

- PACKED: the values as digits of `base` (`bitpack`).
- ZSTD: varint size, then a zstd frame (RFC 8878) without its magic number, of the values as little-endian words
  of 1, 2 or 4 bytes.
- DICTIONARY: varint d, varint g, the gaps between d ascending distinct values (the first counted from 0) as
  digits of g, then a column of indexes into them.
- TRIMMED: varint length of the run of `base - 1` that ends the column, varint length of the run that starts
  it with, when that is not zero, its value as a varint, then a column of what lies between: padding, prompt
  and masks, or an answer and its tail of end tokens.
- CONSTANT: nothing more; every value is `base - 1`.

A column inside another has a form listed before the outer one, which bounds the nesting. A column of no
values takes no bytes.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from difftrace.core.bitpack import pack, packed_size, unpack
from difftrace.core.errors import FormatError
from difftrace.core.frames import compressor, expand
from difftrace.core.varint import Reader, varint, varint_size

if TYPE_CHECKING:
    import zstandard

Ints = npt.NDArray[np.integer]

PACKED: Final = 0
ZSTD: Final = 1
DICTIONARY: Final = 2
TRIMMED: Final = 3
CONSTANT: Final = 4

_FORM_BITS: Final = 3
# Every frame costs about ten bytes, so that shorter columns cannot gain.
_ZSTD_LEAST: Final = 16
_BYTE_VALUES: Final = 1 << 8
# A compressor for up to 16 KiB takes half a megabyte; larger ones are not worth keeping for the next time.
_ZSTD_KEPT_BITS: Final = 14
# Left out of what is stored. zstandard reads frames that lack it from version 0.24 on only, so it is put back.
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"


def write(values: Ints, largest_form: int = CONSTANT) -> bytes:
    """Encode `values`, shape [n], each in [0, 2**31), in the smallest form up to `largest_form`."""
    if values.size == 0:
        return b""
    base = int(values.max()) + 1
    if largest_form >= CONSTANT and int(values.min()) == base - 1:
        return varint(base << _FORM_BITS | CONSTANT)
    return _smallest(values, base, largest_form).build()


class _Candidate(NamedTuple):
    """One form of a column: its size in bytes, and how to get them where no other form is smaller."""

    size: int
    build: Callable[[], bytes]


def _smallest(values: Ints, base: int, largest_form: int) -> _Candidate:
    """Return the smallest form of `values`, the first one among equals; only zstd has to run to know its size."""
    smallest = _packed(values, base)
    if largest_form >= ZSTD and values.size >= _ZSTD_LEAST:
        smallest = _smaller(smallest, _zstd(values, base))
    if largest_form >= DICTIONARY:
        smallest = _smaller(smallest, _dictionary(values, base, smallest.size))
    if largest_form >= TRIMMED:
        smallest = _smaller(smallest, _trimmed(values, base))
    return smallest


def _smaller(one: _Candidate, other: _Candidate | None) -> _Candidate:
    return one if other is None or one.size <= other.size else other


def read(reader: Reader, count: int, limit: int, largest_form: int = CONSTANT) -> Ints:
    """Decode `count` values, each below `limit`; shape [count].

    Raises:
        FormatError: the bytes end too early or are no such column.
    """
    if count == 0:
        return np.zeros(0, dtype=np.uint64)
    base, form = divmod(reader.varint(), 1 << _FORM_BITS)
    if not 0 < base <= limit:
        raise FormatError(f"a column announces values below {base} where they must be below {limit}")
    if form > largest_form:
        raise FormatError(f"a column has the form {form}, which is not allowed there")
    if form == PACKED:
        return unpack(reader.buffer, reader.skip(packed_size(count, base)), count, base)
    if form == CONSTANT:
        values = np.empty(count, dtype=np.int64)
        values.fill(base - 1)
        return values
    if form == TRIMMED:
        return _read_trimmed(reader, count, base, limit)
    if form == DICTIONARY:
        return _read_dictionary(reader, count, base)
    return _read_zstd(reader, count, base)


def _word(base: int) -> npt.DTypeLike:
    return "<u1" if base <= _BYTE_VALUES else "<u2" if base <= 1 << 16 else "<u4"


def _packed(values: Ints, base: int) -> _Candidate:
    return _Candidate(
        _packed_column_size(values.size, base), lambda: varint(base << _FORM_BITS | PACKED) + pack(values, base)
    )


def _packed_column_size(count: int, base: int) -> int:
    return varint_size(base << _FORM_BITS | PACKED) + packed_size(count, base)


def _zstd(values: Ints, base: int) -> _Candidate:
    raw = values.astype(_word(base)).tobytes()
    bits = (len(raw) - 1).bit_length()
    zstd = compressor(bits) if bits > _ZSTD_KEPT_BITS else _kept_compressor(bits, threading.get_ident())
    frame = zstd.compress(raw).removeprefix(_ZSTD_MAGIC)
    data = varint(base << _FORM_BITS | ZSTD) + varint(len(frame)) + frame
    return _Candidate(len(data), lambda: data)


@lru_cache(maxsize=32)
def _kept_compressor(bits: int, thread: int) -> zstandard.ZstdCompressor:
    """Return the compressor of one thread, for two must not use it at once; making it can take longer than its use."""
    return compressor(bits)


def _read_zstd(reader: Reader, count: int, base: int) -> Ints:
    size = reader.varint()
    start = reader.skip(size)
    frame = _ZSTD_MAGIC + reader.buffer[start : start + size]
    dtype = np.dtype(_word(base))
    values = np.frombuffer(expand(frame, count * dtype.itemsize, "a compressed column"), dtype=dtype)
    if int(values.max()) >= base:
        raise FormatError("a compressed value leaves its range")
    return values


def _dictionary(values: Ints, base: int, limit: int) -> _Candidate | None:
    """Return the form, or None where it would take `limit` bytes or more, as can be told without running zstd."""
    order = values.argsort(kind="stable")
    ascending = values[order]
    new = np.empty(values.size, dtype=bool)
    new[0] = True
    np.not_equal(ascending[1:], ascending[:-1], out=new[1:])
    table = ascending[new]
    gaps = table.copy()
    gaps[1:] -= table[:-1]
    gap_base = int(gaps.max()) + 1
    head = base << _FORM_BITS | DICTIONARY, table.size, gap_base
    outside = sum(map(varint_size, head)) + packed_size(table.size, gap_base)
    least = _least_zstd(values.size, table.size)
    if outside + min(least, _packed_column_size(values.size, table.size)) >= limit:
        return None
    indexes = np.empty(values.size, dtype=np.intp)
    indexes[order] = new.cumsum() - 1
    inner = _packed(indexes, table.size)
    if values.size >= _ZSTD_LEAST and inner.size > least:
        inner = _smaller(inner, _zstd(indexes, table.size))
    return _Candidate(outside + inner.size, lambda: b"".join((*map(varint, head), pack(gaps, gap_base), inner.build())))


def _least_zstd(count: int, distinct: int) -> int:
    """Return a size that no zstd column of `count` values is below in which each of `distinct` values from 0 on occurs.

    In bytes of one value each, no match can hold the first occurrence of a value, for it repeats bytes from before. So
    at least `distinct` literals are left, which a prefix code gives the binary logarithm of their number on average
    (Kraft's inequality), and who does not code them 8 bits. Around them are a frame's header of two bytes, a block's of
    three, those of its literals and sequences of one each, and the column's own of two. With several blocks, each with
    a code of its own, that would not hold.
    """
    if not 1 < distinct <= _BYTE_VALUES or count > 1 << _ZSTD_KEPT_BITS:
        return 0
    return int(distinct * math.log2(distinct) / 8) + 9


def _read_dictionary(reader: Reader, count: int, base: int) -> Ints:
    size = reader.bounded(count, "a dictionary's size")
    gap_base = reader.bounded(base, "a dictionary's largest gap")
    table = unpack(reader.buffer, reader.skip(packed_size(size, gap_base)), size, gap_base).cumsum()
    if size == 0 or int(table[-1]) >= base:
        raise FormatError("a dictionary is empty or holds a value that leaves its range")
    return table[read(reader, count, size, DICTIONARY - 1)]


def _trimmed(values: Ints, base: int) -> _Candidate:
    changes = (values[1:] != values[:-1]).nonzero()[0]
    tail = values.size - int(changes[-1]) - 1
    head = int(changes[0]) + 1
    if head == 1:
        # A single value is shorter among the packed ones.
        head = 0
    start = varint(int(values[-1]) + 1 << _FORM_BITS | TRIMMED) + varint(tail) + varint(head)
    if head:
        start += varint(int(values[0]))
    rest = values[head : values.size - tail]
    if rest.size == 0:
        return _Candidate(len(start), lambda: start)
    rest_base = int(rest.max()) + 1
    # Other forms have been tried on all of them; without the last one, which is no outlier, they gain next to nothing.
    largest = PACKED if head == 0 and tail == 1 and rest_base == base else TRIMMED - 1
    inner = _smallest(rest, rest_base, largest)
    return _Candidate(len(start) + inner.size, lambda: start + inner.build())


def _read_trimmed(reader: Reader, count: int, base: int, limit: int) -> Ints:
    tail = reader.bounded(count, "a run's length")
    head = reader.bounded(count - tail, "a run's length")
    first = reader.bounded(limit - 1, "a run's value") if head else 0
    values = np.empty(count, dtype=np.int64)
    values[:head] = first
    values[head : count - tail] = read(reader, count - tail - head, limit, TRIMMED - 1)
    values[count - tail :] = base - 1
    return values
