"""Whatever the bytes are: a valid trajectory or a FormatError, in bounded memory."""

from __future__ import annotations

import contextlib
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from difftrace.core import codec, columns
from difftrace.core.bitpack import SLACK, pack
from difftrace.core.errors import FormatError
from difftrace.core.limits import MAX_CANVAS, MAX_EVENTS, MAX_STEPS
from difftrace.core.trajectory import Trajectory
from difftrace.core.varint import Reader, varint

Make = Callable[..., Trajectory]

PROMPT_IN_CANVAS, PROMPT_OUTSIDE, COMMITTED_IS_MASKED, EXCEPTIONS, IDLE_TAIL, PADDING, PADDING_IS_MASKED, MASK = (
    1 << bit for bit in range(8)
)


def sealed(body: bytes) -> bytes:
    """Return `body` under a valid header, so that its own faults are what is found."""
    return bytes((codec.MAGIC, codec.VERSION)) + zlib.crc32(body).to_bytes(4, "little") + body


def decodes_or_refuses(data: bytes) -> Trajectory | None:
    try:
        decoded = Trajectory.from_bytes(data)
    except FormatError:
        return None
    # The public constructor checks every rule; the codec must have kept them all.
    fields = {name: getattr(decoded, name) for name in Trajectory.__dataclass_fields__}
    rebuilt = Trajectory(**fields)
    assert rebuilt == decoded
    for name in ("prompt", "initial", "steps", "positions", "tokens"):
        assert np.array_equal(getattr(rebuilt, name), getattr(decoded, name)), name
    assert Trajectory.from_bytes(decoded.to_bytes()) == decoded
    return decoded


def valid_bodies() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    mask = 99
    plain = Trajectory([1, 2], [1, 2, *[mask] * 12], rng.integers(0, 9, 12), range(2, 14), rng.integers(0, 300, 12), 9)
    padded = Trajectory([5], [0, 0, 5, *[mask] * 5], [0, 1], [3, 4], [7, 8], 4, 2, [0, 0, 1, 1, 1, 1, 1, 1])
    steps, positions = np.nonzero(rng.random((12, 20)) < rng.choice([0.1, 0.7, 1.0], 12)[:, None])
    again = Trajectory(
        [3, 4], rng.integers(0, 500, 20), steps, positions, rng.integers(0, 500, steps.size), 14, 0, [0, 1] * 10
    )
    text = np.resize(rng.integers(0, 9999, 12), 200)
    repeated = Trajectory(text[:50], np.full(200, mask), np.arange(200) % 50, np.arange(200), text, 50)
    few = Trajectory([], np.full(90, mask), np.arange(90) // 3, np.arange(90), rng.choice(text, 90) * 99, 30)
    tail = Trajectory([], np.full(60, mask), np.arange(60), np.arange(60), [*range(9, 39), *[2] * 30], 60)
    made = {"plain": plain, "padded": padded, "again": again, "repeated": repeated, "few": few, "tail": tail}
    return {name: trajectory.to_bytes()[6:] for name, trajectory in made.items()}


NAMED_BODIES = valid_bodies()
BODIES = list(NAMED_BODIES.values())


def test_the_mutated_encodings_cover_every_form_of_column() -> None:
    seen = set()
    original = columns.read

    def spy(reader: Reader, count: int, *rest: int) -> Any:
        if count:
            seen.add(reader.buffer[reader.position] & 7)
        return original(reader, count, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "read", spy)
        for body in BODIES:
            Trajectory.from_bytes(sealed(body))
    assert seen == {columns.PACKED, columns.ZSTD, columns.DICTIONARY, columns.TRIMMED, columns.CONSTANT}


@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    decodes_or_refuses(data)
    decodes_or_refuses(sealed(data))


@given(
    st.sampled_from(BODIES),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_changed_bytes_under_a_valid_checksum(body: bytes, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(body)
    for place, value in changes:
        # Mostly near the start, where counts and forms are.
        changed[place % len(changed) if place % 2 else place % min(24, len(changed))] = value
    decodes_or_refuses(sealed(bytes(changed)))


@given(
    st.sampled_from(BODIES),
    st.integers(0, 10_000),
    st.integers(0, 8),
    st.one_of(st.binary(max_size=8), st.integers(0, (1 << 62) - 1).map(varint)),
)
def test_inserted_and_removed_bytes_under_a_valid_checksum(
    body: bytes, place: int, removed: int, inserted: bytes
) -> None:
    place %= len(body) + 1
    decodes_or_refuses(sealed(body[:place] + inserted + body[place + removed :]))


@given(
    st.integers(0, 255),
    st.lists(
        st.one_of(
            st.integers(0, 70),
            st.integers(0, (1 << 62) - 1),
            st.tuples(st.integers(1, 300), st.integers(0, 4)).map(lambda head: head[0] << 3 | head[1]),
        ),
        max_size=30,
    ),
)
def test_arbitrary_numbers_as_a_body(flags: int, numbers: list[int]) -> None:
    decodes_or_refuses(sealed(varint(flags) + b"".join(map(varint, numbers))))


@pytest.mark.parametrize("body", BODIES, ids=NAMED_BODIES)
def test_every_flipped_bit_is_found(body: bytes) -> None:
    data = sealed(body)
    for place in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            with pytest.raises(FormatError):
                Trajectory.from_bytes(bytes(changed))


@pytest.mark.parametrize("body", BODIES, ids=NAMED_BODIES)
def test_every_truncation_is_found_with_and_without_its_checksum(body: bytes) -> None:
    for size in range(len(body)):
        with pytest.raises(FormatError):
            Trajectory.from_bytes(sealed(body)[: size + 6])
        with pytest.raises(FormatError):
            Trajectory.from_bytes(sealed(body[:size]))


def test_bytes_behind_the_encoding_are_refused() -> None:
    with pytest.raises(FormatError, match="1 bytes follow"):
        Trajectory.from_bytes(sealed(BODIES[0] + b"\0"))


def constant(value: int) -> bytes:
    return varint((value + 1) << 3 | columns.CONSTANT)


def numbers(*values: int) -> bytes:
    return columns.write(np.array(values))


CASES = {
    "nothing at all": (b"", "not an encoded trajectory"),
    "another file": (b"\x89PNG\r\n\x1a\n", "not an encoded trajectory"),
    "a later version": (bytes((codec.MAGIC, 2)) + bytes(10), "has version 2; this version of difftrace reads 1"),
    "a wrong checksum": (sealed(BODIES[0])[:-1] + b"\xff", "checksum"),
    "unknown flags": (sealed(varint(256)), "flags field is 256"),
    "an endless number": (sealed(b"\xff" * 30), "the number is too long"),
    "a canvas of billions": (sealed(varint(0) + varint(10**10)), "canvas length is 10000000000, more than"),
    "a prompt of billions": (sealed(varint(PROMPT_OUTSIDE) + varint(3) + varint(10**10)), "prompt length is"),
    "a prompt longer than its canvas": (sealed(varint(PROMPT_IN_CANVAS) + varint(3) + varint(5)), "prompt length is 5"),
    "a prompt in two places": (sealed(varint(3) + varint(3)), "both in the canvas and outside"),
    "more padding than canvas": (sealed(varint(PADDING) + varint(3) + varint(5)), "padding is 5"),
    "billions of idle steps": (sealed(varint(IDLE_TAIL) + varint(3) + varint(10**10)), "idle steps is"),
    "too many steps in all": (
        sealed(varint(IDLE_TAIL | COMMITTED_IS_MASKED) + varint(0) + varint(MAX_STEPS) + constant(9) * 3),
        "number of steps is 1048586, more than",
    ),
    "hidden padding that is not there": (
        sealed(varint(PADDING_IS_MASKED) + varint(3) + constant(9)),
        "hide padding that is not there",
    ),
    "a mask that hides nothing": (
        sealed(varint(MASK) + varint(3) + constant(9) + constant(1)),
        "hides nothing",
    ),
    "a mask of threes": (sealed(varint(MASK) + varint(3) + constant(9) + constant(3)), "below 4 where"),
    "a token beyond 32 bits": (sealed(varint(0) + varint(3) + constant(1 << 31)), "must be below 2147483648"),
    "a position committed twice and thrice": (
        sealed(varint(0) + varint(3) + constant(9) + constant(2)),
        "below 3 where they must be below 2",
    ),
    "an unknown form of column": (sealed(varint(0) + varint(3) + varint(1 << 3 | 5)), "form 5"),
    "a column without values": (sealed(varint(0) + varint(3) + varint(0)), "below 0"),
    "a packed column longer than the bytes": (
        sealed(varint(0) + varint(MAX_CANVAS - 1) + varint(1 << 31 << 3)),
        "bytes are announced where 0 are left",
    ),
}


@pytest.mark.parametrize(("data", "message"), CASES.values(), ids=CASES)
def test_a_fault_is_named(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Trajectory.from_bytes(data)


def exceptions(counts: bytes, *rest: bytes, length: int = 4, first_steps: bytes | None = None) -> bytes:
    """A canvas of masks that are all committed at step 0 (or `first_steps`), then the exceptions; 3 steps in all."""
    steps = constant(0) if first_steps is None else first_steps
    head = varint(COMMITTED_IS_MASKED | EXCEPTIONS | IDLE_TAIL) + varint(length - 1) + varint(2)
    return sealed(head + constant(9) + steps + constant(5) + counts + b"".join(rest))


def test_the_exceptions_of_these_tests_are_valid_when_nothing_is_wrong() -> None:
    decoded = Trajectory.from_bytes(exceptions(numbers(0, 1, 4), numbers(3), numbers(6, 7, 7, 7, 8)))
    assert decoded.final.tolist() == [7, 7, 7, 8]
    assert decoded.canvas(2).tolist() == [5, 5, 5, 6]


EXCEPTION_CASES = {
    "none": (exceptions(constant(0)), "0 repeated commits are announced"),
    "more than the canvas in one step": (exceptions(numbers(0, 5, 0)), "below 6 where they must be below 5"),
    "before the first commit": (exceptions(numbers(1, 0, 0), numbers(3), numbers(6)), "precedes the first one"),
    "out of order": (
        exceptions(numbers(0, 2, 0), numbers(3, 1), numbers(6, 7), length=64),
        "not in ascending order",
    ),
    "twice in a step": (exceptions(numbers(0, 2, 0), numbers(3, 3), numbers(6, 7), length=64), "ascending order"),
    "outside the canvas": (exceptions(numbers(0, 1, 0), numbers(4), numbers(6)), "below 5 where they must be below 4"),
    "a bitmap of too few": (exceptions(numbers(0, 3, 0), numbers(3), numbers(6, 7, 8)), "bitmap of positions"),
    "without tokens": (exceptions(numbers(0, 1, 0), numbers(3)), "end too early"),
    "too many in all": (
        sealed(
            varint(COMMITTED_IS_MASKED | EXCEPTIONS | IDLE_TAIL)
            + varint(1023)
            + varint(MAX_EVENTS >> 10)
            + constant(9)
            + constant(0)
            + constant(5)
            + constant(1024)
        ),
        f"there may be 1 to {MAX_EVENTS}",
    ),
}


@pytest.mark.parametrize(("data", "message"), EXCEPTION_CASES.values(), ids=EXCEPTION_CASES)
def test_a_fault_in_the_exceptions_is_named(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Trajectory.from_bytes(data)


def read_column(data: bytes, count: int, limit: int = 1 << 31) -> Any:
    return columns.read(Reader(data + bytes(SLACK), 0, len(data)), count, limit)


COLUMN_CASES = {
    "a dictionary of nothing": (varint(9 << 3 | columns.DICTIONARY) + varint(0) + varint(1), "dictionary is empty"),
    "a dictionary longer than the column": (varint(9 << 3 | columns.DICTIONARY) + varint(99), "size is 99"),
    "a dictionary with a wide gap": (varint(9 << 3 | columns.DICTIONARY) + varint(1) + varint(99), "gap is 99"),
    "a dictionary beyond its base": (
        varint(9 << 3 | columns.DICTIONARY) + varint(3) + varint(8) + pack(np.array([7, 7, 7]), 8),
        "leaves its range",
    ),
    "an index beyond the dictionary": (
        varint(9 << 3 | columns.DICTIONARY) + varint(1) + varint(1) + varint(2 << 3) + b"\xff\xff",
        "below 2 where they must be below 1",
    ),
    "a tail longer than the column": (varint(9 << 3 | columns.TRIMMED) + varint(17), "run's length is 17"),
    "a head longer than the rest": (varint(9 << 3 | columns.TRIMMED) + varint(9) + varint(8), "length is 8"),
    "runs inside runs": (
        varint(9 << 3 | columns.TRIMMED) + varint(1) + varint(0) + varint(9 << 3 | columns.TRIMMED),
        "form 3, which is not allowed there",
    ),
    "dictionaries inside dictionaries": (
        varint(9 << 3 | columns.DICTIONARY) + varint(1) + varint(1) + varint(1 << 3 | columns.DICTIONARY),
        "form 2, which is not allowed there",
    ),
}


@pytest.mark.parametrize(("data", "message"), COLUMN_CASES.values(), ids=COLUMN_CASES)
def test_a_fault_in_a_column_is_named(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_column(data, 16)


def test_a_value_of_a_leading_run_stays_below_the_limit() -> None:
    data = varint(9 << 3 | columns.TRIMMED) + varint(1) + varint(15) + varint(50)
    assert read_column(data, 16, 51)[0] == 50
    with pytest.raises(FormatError, match="run's value is 50"):
        read_column(data, 16, 50)


def compressed(raw: bytes, *, content_size: bool = False) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        window_log=10,
        write_content_size=content_size,
        write_checksum=False,
    )
    frame = zstandard.ZstdCompressor(compression_params=parameters).compress(raw)
    return varint(200 << 3 | columns.ZSTD) + varint(len(frame)) + frame


def test_the_frames_of_these_tests_are_valid_when_nothing_is_wrong() -> None:
    assert read_column(compressed(b"\x07" * 64), 64).tolist() == [7] * 64


FRAME_CASES = {
    "ten megabytes": (compressed(bytes(10**7)), "does not expand to the 64 bytes"),
    "ten megabytes, stated": (compressed(bytes(10**7), content_size=True), "states its expanded size"),
    "the right size, stated": (compressed(bytes(64), content_size=True), "states its expanded size"),
    "one byte less": (compressed(bytes(63)), "expands to 63 bytes instead of 64"),
    "values beyond the base": (compressed(b"\xff" * 64), "compressed value leaves its range"),
    "no frame": (varint(200 << 3 | columns.ZSTD) + varint(40) + b"\x05" * 40, "does not expand"),
    "an empty frame": (varint(200 << 3 | columns.ZSTD) + varint(0), "does not expand"),
    "a frame beyond the bytes": (varint(200 << 3 | columns.ZSTD) + varint(10**12), "bytes are announced"),
}


@pytest.mark.parametrize(("data", "message"), FRAME_CASES.values(), ids=FRAME_CASES)
def test_frames_that_expand_to_anything_else_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_column(data, 64)


def frame_with_window(window_log: int) -> bytes:
    """64 bytes of 7 as a raw block, in a frame that asks the reader for 2**window_log bytes (RFC 8878, 3.1.1)."""
    descriptor_and_window = bytes((0, (window_log - 10) << 3))
    frame = descriptor_and_window + (64 << 3 | 1).to_bytes(3, "little") + b"\x07" * 64
    return varint(200 << 3 | columns.ZSTD) + varint(len(frame)) + frame


def test_a_frame_that_asks_for_more_memory_than_its_values_need_is_refused() -> None:
    assert read_column(frame_with_window(10), 64).tolist() == [7] * 64
    with pytest.raises(FormatError, match="does not expand"):
        read_column(frame_with_window(27), 64)


def test_a_frame_that_states_ten_gigabytes_is_refused_in_bounded_memory() -> None:
    # Single segment, content size of eight bytes: RFC 8878, section 3.1.1.1.
    frame = bytes([0b1110_0000]) + (10 << 30).to_bytes(8, "little") + b"\x01\x00\x00"
    data = varint(200 << 3 | columns.ZSTD) + varint(len(frame)) + frame
    assert peak_memory(lambda: read_column(data, 64)) < 1 << 20


def test_a_frame_followed_by_another_is_refused() -> None:
    frame = compressed(bytes(64))[3:]
    data = varint(200 << 3 | columns.ZSTD) + varint(2 * len(frame)) + frame + frame
    with pytest.raises(FormatError, match="does not expand"):
        read_column(data, 64)


def peak_memory(action: Callable[[], object]) -> int:
    """Return the most bytes Python and numpy held during `action`."""
    tracemalloc.start()
    try:
        with contextlib.suppress(FormatError):
            action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def largest(counts: list[int], *rest: bytes) -> bytes:
    """The longest canvas, committed whole at step 0, then at step 1 onwards as often as `counts` says."""
    head = varint(COMMITTED_IS_MASKED | EXCEPTIONS | IDLE_TAIL) + varint(MAX_CANVAS - 1) + varint(len(counts))
    return sealed(head + constant(9) + constant(0) + constant(5) + numbers(0, *counts) + b"".join(rest))


BITMAP = MAX_CANVAS // 20 + 1
LIST = MAX_CANVAS // 20 - 1

LARGEST = {
    "all positions": largest([MAX_CANVAS] * 3, constant(7)),
    "all positions once too often": largest([MAX_CANVAS] * 4, constant(7)),
    "full bitmaps": largest([BITMAP] * 59, constant(255), constant(7)),
    "empty bitmaps": largest([BITMAP] * 59, constant(0), constant(7)),
    "lists": largest([LIST] * 59, constant(255), constant(7)),
    "steps without end": sealed(
        varint(EXCEPTIONS | IDLE_TAIL) + varint(0) + varint(MAX_STEPS - 1) + constant(9) + constant(1) * 4
    ),
}


@pytest.mark.parametrize("data", LARGEST.values(), ids=LARGEST)
def test_the_most_that_a_few_bytes_can_announce_takes_bounded_memory(data: bytes) -> None:
    assert len(data) < 100
    assert peak_memory(lambda: Trajectory.from_bytes(data)) < 256 << 20


def test_a_short_file_that_announces_packed_values_takes_little() -> None:
    body = varint(0) + varint(MAX_CANVAS - 1) + varint(1 << 31 << 3) + bytes(1000)
    assert peak_memory(lambda: Trajectory.from_bytes(sealed(body))) < 1 << 20
