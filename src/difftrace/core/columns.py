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

from typing import Final

import numpy as np
import numpy.typing as npt

from difftrace.core.bitpack import pack, packed_size, unpack
from difftrace.core.errors import FormatError
from difftrace.core.varint import Reader, varint

Ints = npt.NDArray[np.integer]

PACKED: Final = 0
ZSTD: Final = 1
DICTIONARY: Final = 2
TRIMMED: Final = 3
CONSTANT: Final = 4

_FORM_BITS: Final = 3
_ZSTD_LEVEL: Final = 19
# Every frame costs about ten bytes, so that shorter columns cannot gain.
_ZSTD_LEAST: Final = 16
_ZSTD_SMALLEST_WINDOW: Final = 1 << 10
# Left out of what is stored. zstandard reads frames that lack it from version 0.24 on only, so it is put back.
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"


def write(values: Ints, largest_form: int = CONSTANT) -> bytes:
    """Encode `values`, shape [n], each in [0, 2**31), in the smallest form up to `largest_form`."""
    if values.size == 0:
        return b""
    base = int(values.max()) + 1
    if largest_form >= CONSTANT and int(values.min()) == base - 1:
        return varint(base << _FORM_BITS | CONSTANT)
    candidates = [varint(base << _FORM_BITS | PACKED) + pack(values, base)]
    if largest_form >= ZSTD and values.size >= _ZSTD_LEAST:
        candidates.append(varint(base << _FORM_BITS | ZSTD) + _write_zstd(values, base))
    if largest_form >= DICTIONARY:
        candidates.append(varint(base << _FORM_BITS | DICTIONARY) + _write_dictionary(values))
    if largest_form >= TRIMMED:
        candidates.append(varint(int(values[-1]) + 1 << _FORM_BITS | TRIMMED) + _write_trimmed(values))
    return min(candidates, key=len)


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
        return np.full(count, base - 1, dtype=np.int64)
    if form == TRIMMED:
        return _read_trimmed(reader, count, base, limit)
    if form == DICTIONARY:
        return _read_dictionary(reader, count, base)
    return _read_zstd(reader, count, base)


def _word(base: int) -> npt.DTypeLike:
    return "<u1" if base <= 1 << 8 else "<u2" if base <= 1 << 16 else "<u4"


def _write_zstd(values: Ints, base: int) -> bytes:
    import zstandard

    # No sizes: the reader knows them, and a stated size would switch its limit off.
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _ZSTD_LEVEL,
        source_size=values.size * np.dtype(_word(base)).itemsize,
        write_content_size=False,
        write_checksum=False,
        write_dict_id=False,
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    frame = compressor.compress(values.astype(_word(base)).tobytes()).removeprefix(_ZSTD_MAGIC)
    return varint(len(frame)) + frame


def _read_zstd(reader: Reader, count: int, base: int) -> Ints:
    import zstandard

    size = reader.varint()
    start = reader.skip(size)
    frame = _ZSTD_MAGIC + reader.buffer[start : start + size]
    dtype = np.dtype(_word(base))
    expanded = count * dtype.itemsize
    # A window wider than the data would only cost memory.
    window = max(_ZSTD_SMALLEST_WINDOW, 1 << (expanded - 1).bit_length())
    decompressor = zstandard.ZstdDecompressor(max_window_size=window)
    try:
        stated = zstandard.get_frame_parameters(frame).content_size
        # zstandard ignores max_output_size for a frame that states its size, so none of those is accepted.
        if stated != zstandard.CONTENTSIZE_UNKNOWN:
            raise FormatError("a compressed column states its expanded size, which none of ours does")
        raw = decompressor.decompress(frame, max_output_size=expanded, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FormatError(f"a compressed column does not expand to the {expanded} bytes it should: {error}") from None
    if len(raw) != expanded:
        raise FormatError(f"a compressed column expands to {len(raw)} bytes instead of {expanded}")
    values = np.frombuffer(raw, dtype=dtype)
    if int(values.max()) >= base:
        raise FormatError("a compressed value leaves its range")
    return values


def _write_dictionary(values: Ints) -> bytes:
    table, indexes = np.unique(values, return_inverse=True)
    gaps = np.diff(table, prepend=0)
    base = int(gaps.max()) + 1
    return varint(table.size) + varint(base) + pack(gaps, base) + write(indexes.reshape(-1), DICTIONARY - 1)


def _read_dictionary(reader: Reader, count: int, base: int) -> Ints:
    size = reader.bounded(count, "a dictionary's size")
    gap_base = reader.bounded(base, "a dictionary's largest gap")
    table = unpack(reader.buffer, reader.skip(packed_size(size, gap_base)), size, gap_base).cumsum()
    if size == 0 or int(table[-1]) >= base:
        raise FormatError("a dictionary is empty or holds a value that leaves its range")
    return table[read(reader, count, size, DICTIONARY - 1)]


def _write_trimmed(values: Ints) -> bytes:
    changes = np.flatnonzero(values[1:] != values[:-1])
    tail = values.size - int(changes[-1]) - 1
    head = int(changes[0]) + 1
    if head == 1:
        # A single value is shorter among the packed ones.
        head = 0
    start = b"" if head == 0 else varint(int(values[0]))
    return varint(tail) + varint(head) + start + write(values[head : values.size - tail], TRIMMED - 1)


def _read_trimmed(reader: Reader, count: int, base: int, limit: int) -> Ints:
    tail = reader.bounded(count, "a run's length")
    head = reader.bounded(count - tail, "a run's length")
    first = reader.bounded(limit - 1, "a run's value") if head else 0
    values = np.empty(count, dtype=np.int64)
    values[:head] = first
    values[head : count - tail] = read(reader, count - tail - head, limit, TRIMMED - 1)
    values[count - tail :] = base - 1
    return values
