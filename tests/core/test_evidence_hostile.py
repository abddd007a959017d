"""Whatever the bytes are: valid evidence or a FormatError, in bounded memory."""

from __future__ import annotations

import contextlib
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from difftrace.core import columns, evidence_codec
from difftrace.core.errors import FormatError
from difftrace.core.evidence import Evidence
from difftrace.core.evidence_columns import LAYOUT, numbers
from difftrace.core.limits import MAX_EVENTS, MAX_EVIDENCE_NUMBERS, MAX_STEPS
from difftrace.core.trajectory import Trajectory
from difftrace.core.varint import varint

Simulated = Callable[..., tuple[Trajectory, Evidence]]


def sealed(body: bytes) -> bytes:
    """Return `body` under a valid header, so that its own faults are what is found."""
    return bytes((evidence_codec.MAGIC, evidence_codec.VERSION)) + zlib.crc32(body).to_bytes(4, "little") + body


def decodes_or_refuses(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        decoded = Evidence.from_bytes(data)
        rebuilt = Evidence(**{column.name: getattr(decoded, column.name) for column in LAYOUT})
        assert rebuilt == decoded
        assert Evidence.from_bytes(decoded.to_bytes()) == decoded


@pytest.fixture(scope="module")
def bodies(simulated: Simulated) -> list[bytes]:
    made = [simulated(length=12, steps=4), simulated(length=3, steps=3, temperature=0.5), simulated(length=2, steps=2)]
    return [evidence.to_bytes()[6:] for _, evidence in made]


@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    decodes_or_refuses(data)
    decodes_or_refuses(sealed(data))


@given(
    st.integers(0, 2),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_changed_bytes_under_a_valid_checksum(bodies: list[bytes], which: int, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(bodies[which])
    for place, value in changes:
        # Mostly near the start, where counts and forms are.
        changed[place % len(changed) if place % 2 else place % min(24, len(changed))] = value
    decodes_or_refuses(sealed(bytes(changed)))


@given(
    st.integers(0, 2),
    st.integers(0, 10_000),
    st.integers(0, 8),
    st.one_of(st.binary(max_size=8), st.integers(0, (1 << 62) - 1).map(varint)),
)
def test_inserted_and_removed_bytes_under_a_valid_checksum(
    bodies: list[bytes], which: int, place: int, removed: int, inserted: bytes
) -> None:
    body = bodies[which]
    place %= len(body) + 1
    decodes_or_refuses(sealed(body[:place] + inserted + body[place + removed :]))


def test_every_flipped_bit_is_found(bodies: list[bytes]) -> None:
    data = sealed(bodies[1])
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        with pytest.raises(FormatError):
            Evidence.from_bytes(bytes(changed))


def test_every_truncation_is_found_with_and_without_its_checksum(bodies: list[bytes]) -> None:
    for size in range(len(bodies[1])):
        with pytest.raises(FormatError):
            Evidence.from_bytes(sealed(bodies[1])[: size + 6])
        with pytest.raises(FormatError):
            Evidence.from_bytes(sealed(bodies[1][:size]))


def constant(value: int) -> bytes:
    return varint((value + 1) << 3 | columns.CONSTANT)


def test_a_fault_is_named(bodies: list[bytes]) -> None:
    cases = {
        b"": "not encoded evidence",
        b"\xd7\x01" + bytes(20): "not encoded evidence",
        bytes((evidence_codec.MAGIC, 2)) + bytes(10): "has version 2; this version of difftrace reads 1",
        sealed(bodies[0])[:-1] + b"\xff": "checksum",
        sealed(bodies[0] + b"\0"): "1 bytes follow the encoded evidence",
        sealed(varint(MAX_EVENTS + 1) + varint(0)): "number of events is 4194305",
        sealed(varint(0) + varint(MAX_STEPS + 1)): "number of steps is 1048577",
        sealed(varint(0) + varint(MAX_STEPS)): f"more than the {MAX_EVIDENCE_NUMBERS}",
        sealed(varint(0) + varint(4) + constant(5)): "below 6 where they must be below 5",
    }
    for data, message in cases.items():
        with pytest.raises(FormatError, match=message):
            Evidence.from_bytes(data)


def test_columns_that_contradict_each_other_are_refused_as_a_format(simulated: Simulated) -> None:
    _, evidence = simulated(length=12, steps=4)
    fields = {column.name: getattr(evidence, column.name) for column in LAYOUT}
    fields["ties"] = np.full(4, 99, dtype=np.int32)
    with pytest.raises(FormatError, match="step 0 has more ties than candidates"):
        Evidence.from_bytes(evidence_codec.encode(fields))
    with pytest.raises(FormatError, match="is bytes, not str"):
        Evidence.from_bytes("evidence")  # type: ignore[arg-type]


def test_the_most_that_a_few_bytes_can_announce_takes_bounded_memory() -> None:
    steps = MAX_EVIDENCE_NUMBERS // numbers(0, 1)
    planes = {"<i4": 1, "<f4": 4, "<i8": 8}
    listed = ("rejected_positions", "rejected_tokens", "rejected_confidences")
    per_step = [column for column in LAYOUT if column.per == "step" and column.name not in listed]
    data = sealed(varint(0) + varint(steps) + constant(0) + b"".join(constant(0) * planes[c.number] for c in per_step))
    assert len(data) < 100
    tracemalloc.start()
    try:
        assert Evidence.from_bytes(data).num_steps == steps
        assert tracemalloc.get_traced_memory()[1] < 256 << 20
    finally:
        tracemalloc.stop()
