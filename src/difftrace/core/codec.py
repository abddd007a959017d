"""A trajectory as bytes, close to what its decisions are worth.

The magic byte, the version, the CRC-32 of the body (little-endian), then the body. Every number is a varint
and every column one of `columns`:

1. flags; canvas length - 1; idle steps after the last first commit, if flagged; padding, if flagged; prompt
   length, if any
2. prompt; the initial canvas without the prompt where it lies at `padding` in it; attention mask, if it is
   not derivable
3. which positions are ever committed (0/1 by position), unless they are those that equal the canvas' last
   token at first, which is the mask in masked denoising
4. by position, over the committed ones: the step of the first commit; its token
5. the exceptions, if any: commits of positions that were committed before. Their number by step; for steps
   where a bitmap is shorter, the bitmaps (bytes of all such steps as one bit string); for the others the
   positions; the tokens. Whether a step has a bitmap follows from its number, and a step that commits the
   whole canvas lists nothing.

Measured against L * log2(V) + log2(L! / prod k_s!) bits (one commit per position), random trajectories of L =
512 to 4096 take 1.03 to 1.09 times as many; `benchmarks/codec.py` prints the figures.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from difftrace.core import columns
from difftrace.core.bitpack import SLACK
from difftrace.core.errors import FormatError
from difftrace.core.limits import MAX_CANVAS, MAX_EVENTS, MAX_STEPS, MAX_TOKEN
from difftrace.core.varint import Reader, varint

Ints = npt.NDArray[np.int32]

MAGIC: Final = 0xD7
VERSION: Final = 1

_HEADER: Final = 6
_TOKENS: Final = MAX_TOKEN + 1

# Flags, the frequent ones in the first seven bits.
_PROMPT_IN_CANVAS: Final = 1 << 0
_PROMPT_OUTSIDE: Final = 1 << 1
_COMMITTED_IS_MASKED: Final = 1 << 2
_EXCEPTIONS: Final = 1 << 3
_IDLE_TAIL: Final = 1 << 4
_PADDING: Final = 1 << 5
_PADDING_IS_MASKED: Final = 1 << 6
_ATTENTION_MASK: Final = 1 << 7
_ALL_FLAGS: Final = (1 << 8) - 1


@dataclass(frozen=True)
class Columns:
    """The fields of a trajectory, events in canonical order; see `difftrace.core.trajectory.Trajectory`."""

    prompt: Ints
    initial: Ints
    steps: Ints
    positions: Ints
    tokens: Ints
    num_steps: int
    padding: int
    attention_mask: Ints | None


def encode(fields: Columns) -> bytes:
    """Return the bytes of valid `fields`."""
    flags = 0
    length, prompt_length, padding = fields.initial.size, fields.prompt.size, fields.padding
    rest = fields.initial
    if prompt_length:
        inside = slice(padding, padding + prompt_length)
        if np.array_equal(rest[inside], fields.prompt):
            flags |= _PROMPT_IN_CANVAS
            rest = np.concatenate((rest[:padding], rest[inside.stop :]))
        else:
            flags |= _PROMPT_OUTSIDE

    attention = b""
    if fields.attention_mask is not None:
        if np.array_equal(fields.attention_mask, np.arange(length) >= padding):
            flags |= _PADDING_IS_MASKED
        else:
            flags |= _ATTENTION_MASK
            attention = columns.write(fields.attention_mask)

    committed = np.zeros(length, dtype=np.int32)
    committed[fields.positions] = 1
    by_position = _first_commits(fields.positions)
    first_steps = fields.steps[by_position]
    if np.array_equal(committed, fields.initial == fields.initial[-1]):
        flags |= _COMMITTED_IS_MASKED
        where = b""
    else:
        where = columns.write(committed)

    idle = fields.num_steps - (int(first_steps.max()) + 1 if by_position.size else 0)
    exceptions = b""
    if by_position.size < fields.positions.size:
        flags |= _EXCEPTIONS
        again = np.ones(fields.positions.size, dtype=bool)
        again[by_position] = False
        exceptions = _write_exceptions(
            fields.steps[again], fields.positions[again], fields.tokens[again], length, fields.num_steps
        )
    flags |= (_IDLE_TAIL if idle else 0) | (_PADDING if padding else 0)

    body = b"".join(
        (
            varint(flags),
            varint(length - 1),
            varint(idle) if idle else b"",
            varint(padding) if padding else b"",
            varint(prompt_length) if prompt_length else b"",
            columns.write(fields.prompt),
            columns.write(rest),
            attention,
            where,
            columns.write(first_steps),
            columns.write(fields.tokens[by_position]),
            exceptions,
        )
    )
    return bytes((MAGIC, VERSION)) + zlib.crc32(body).to_bytes(4, "little") + body


def decode(data: bytes) -> Columns:
    """Return the fields of the trajectory that `encode` wrote; every rule of a trajectory holds for them.

    Whatever the bytes are, memory stays below about 200 MiB, the cost of the largest trajectory within `limits`,
    plus a small multiple of `data`.

    Raises:
        FormatError: `data` is not such an encoding.
    """
    if len(data) < _HEADER or data[0] != MAGIC:
        raise FormatError("these bytes are not an encoded trajectory")
    if data[1] != VERSION:
        raise FormatError(f"the trajectory's encoding has version {data[1]}; this version of difftrace reads {VERSION}")
    if zlib.crc32(data[_HEADER:]) != int.from_bytes(data[2:_HEADER], "little"):
        raise FormatError("the checksum of the encoded trajectory does not match: its bytes were changed or cut off")
    reader = Reader(data + bytes(SLACK), _HEADER, len(data))

    flags = reader.bounded(_ALL_FLAGS, "the flags field")
    length = reader.bounded(MAX_CANVAS - 1, "the canvas length") + 1
    idle = reader.bounded(MAX_STEPS, "the number of idle steps") if flags & _IDLE_TAIL else 0
    padding = reader.bounded(length, "the padding") if flags & _PADDING else 0
    prompt, initial = _read_canvas(reader, flags, length, padding)
    attention_mask = _read_attention_mask(reader, flags, length, padding)

    if flags & _COMMITTED_IS_MASKED:
        positions = (initial == initial[-1]).nonzero()[0]
    else:
        positions = columns.read(reader, length, 2).nonzero()[0]
    steps = columns.read(reader, positions.size, MAX_STEPS).astype(np.int32)
    tokens = columns.read(reader, positions.size, _TOKENS).astype(np.int32)
    num_steps = idle + (int(steps.max()) + 1 if positions.size else 0)
    if num_steps > MAX_STEPS:
        raise FormatError(f"the number of steps is {num_steps}, more than the limit of {MAX_STEPS}")
    positions = positions.astype(np.int32)
    if flags & _EXCEPTIONS:
        again = _read_exceptions(reader, positions, steps, length, num_steps)
        steps, positions, tokens = (
            np.concatenate(both) for both in zip((steps, positions, tokens), again, strict=True)
        )
        order = (steps.astype(np.int64) * length + positions).argsort()
    else:
        # Sixteen bits are sorted by radix.
        order = (steps.astype(np.uint16) if num_steps <= 1 << 16 else steps).argsort(kind="stable")
    if reader.position != reader.end:
        raise FormatError(f"{reader.end - reader.position} bytes follow the encoded trajectory")
    return Columns(prompt, initial, steps[order], positions[order], tokens[order], num_steps, padding, attention_mask)


def _read_canvas(reader: Reader, flags: int, length: int, padding: int) -> tuple[Ints, Ints]:
    """Return (prompt, initial canvas)."""
    kind = flags & (_PROMPT_IN_CANVAS | _PROMPT_OUTSIDE)
    if not kind:
        return np.zeros(0, dtype=np.int32), columns.read(reader, length, _TOKENS).astype(np.int32)
    if kind == _PROMPT_IN_CANVAS | _PROMPT_OUTSIDE:
        raise FormatError("the prompt is said to lie both in the canvas and outside it")
    most = length - padding if kind == _PROMPT_IN_CANVAS else MAX_CANVAS
    prompt_length = reader.bounded(most, "the prompt length")
    prompt = columns.read(reader, prompt_length, _TOKENS).astype(np.int32)
    if kind == _PROMPT_OUTSIDE:
        return prompt, columns.read(reader, length, _TOKENS).astype(np.int32)
    rest = columns.read(reader, length - prompt_length, _TOKENS).astype(np.int32)
    return prompt, np.concatenate((rest[:padding], prompt, rest[padding:]))


def _read_attention_mask(reader: Reader, flags: int, length: int, padding: int) -> Ints | None:
    if flags & _PADDING_IS_MASKED:
        if not padding or flags & _ATTENTION_MASK:
            raise FormatError("the attention mask is said to hide padding that is not there")
        mask = np.ones(length, dtype=np.int32)
        mask[:padding] = 0
        return mask
    if flags & _ATTENTION_MASK:
        mask = columns.read(reader, length, 2).astype(np.int32)
        if mask.all():
            raise FormatError("the attention mask hides nothing")
        return mask
    return None


def _first_commits(positions: Ints) -> npt.NDArray[np.intp]:
    """Return the indexes of the events that commit their position for the first time, by position."""
    by_position = positions.argsort(kind="stable")
    ascending = positions[by_position]
    first = np.ones(positions.size, dtype=bool)
    np.not_equal(ascending[1:], ascending[:-1], out=first[1:])
    return by_position[first]


def _has_bitmap(counts: npt.NDArray[np.integer], length: int) -> npt.NDArray[np.bool_]:
    """Say for each step whether `length` bits are fewer than a list of its positions takes."""
    return (counts * (length - 1).bit_length() > length) & (counts < length)


def _write_exceptions(steps: Ints, positions: Ints, tokens: Ints, length: int, num_steps: int) -> bytes:
    counts = np.bincount(steps, minlength=num_steps)
    bitmapped = _has_bitmap(counts, length)[steps]
    listed = ~bitmapped & (counts[steps] < length)
    rows = np.unique(steps[bitmapped], return_inverse=True)[1]
    bits = np.zeros((int(rows.max()) + 1 if rows.size else 0, length), dtype=np.uint8)
    bits[rows, positions[bitmapped]] = 1
    return b"".join(
        (
            columns.write(counts),
            columns.write(np.packbits(bits, bitorder="little")),
            columns.write(positions[listed]),
            columns.write(tokens),
        )
    )


def _read_exceptions(
    reader: Reader, committed: Ints, first_steps: Ints, length: int, num_steps: int
) -> tuple[Ints, Ints, Ints]:
    """Return the (steps, positions, tokens) of commits after the first, by step and position."""
    counts = columns.read(reader, num_steps, length + 1).astype(np.int64)
    total = int(counts.sum())
    if total == 0 or total + committed.size > MAX_EVENTS:
        raise FormatError(f"{total} repeated commits are announced; there may be 1 to {MAX_EVENTS} commits in all")
    bitmapped = _has_bitmap(counts, length)
    steps = np.repeat(np.arange(num_steps, dtype=np.int64), counts)
    in_bitmap = bitmapped[steps]
    whole = (counts == length)[steps]
    listed = ~(in_bitmap | whole)

    positions = np.empty(total, dtype=np.int64)
    positions[whole] = np.tile(np.arange(length), np.count_nonzero(whole) // length)
    positions[in_bitmap] = _read_bitmaps(reader, counts[bitmapped], length)
    positions[listed] = columns.read(reader, int(np.count_nonzero(listed)), length)
    if not (np.diff(steps * length + positions) > 0).all():
        raise FormatError("the positions of a step are not in ascending order")
    first = np.full(length, num_steps, dtype=np.int64)
    first[committed] = first_steps
    if not (first[positions] < steps).all():
        raise FormatError("a repeated commit precedes the first one at its position")
    tokens = columns.read(reader, total, _TOKENS).astype(np.int32)
    return steps.astype(np.int32), positions.astype(np.int32), tokens


def _read_bitmaps(reader: Reader, counts: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.intp]:
    """Return the positions set in one bitmap for each of `counts`, one bitmap after the other."""
    size = counts.size * length
    packed = columns.read(reader, -(-size // 8), 1 << 8).astype(np.uint8)
    bits = np.unpackbits(packed, count=size, bitorder="little").reshape(counts.size, length)
    if not np.array_equal(np.count_nonzero(bits, axis=1), counts):
        raise FormatError("a bitmap of positions does not hold as many as its step commits")
    return bits.nonzero()[1]
