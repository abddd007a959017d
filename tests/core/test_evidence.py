from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from difftrace.core.errors import TrajectoryError
from difftrace.core.evidence import DIGEST_LANES, PROJECTIONS, REJECTED, Evidence
from difftrace.core.evidence_columns import LAYOUT
from difftrace.core.trajectory import Trajectory

Simulated = Callable[..., tuple[Trajectory, Evidence]]

NAMES = [column.name for column in LAYOUT]


def content(evidence: Evidence) -> dict[str, Any]:
    return {name: getattr(evidence, name).copy() for name in NAMES}


def changed(evidence: Evidence, name: str, place: tuple[int, ...], value: float) -> dict[str, Any]:
    columns = content(evidence)
    columns[name][place] = value
    return columns


@pytest.fixture(scope="module")
def recorded(simulated: Simulated) -> tuple[Trajectory, Evidence]:
    return simulated(length=12, steps=6)


@pytest.fixture(scope="module")
def evidence(recorded: tuple[Trajectory, Evidence]) -> Evidence:
    return recorded[1]


def test_columns_are_kept_in_their_types_as_read_only_copies(evidence: Evidence) -> None:
    given_columns = {
        name: values.astype(np.int64)
        if values.dtype == np.int32
        else values.astype(np.float64)
        if values.dtype == np.float32
        else values
        for name, values in content(evidence).items()
    }
    kept = Evidence(**given_columns)
    assert kept == evidence
    for column in LAYOUT:
        values = getattr(kept, column.name)
        assert values.dtype == np.dtype(column.number)
        assert values.shape == column.shape(12, 6)
        assert not np.shares_memory(values, given_columns[column.name])
        with pytest.raises(ValueError, match="read-only"):
            values[...] = 0


def test_the_fields_are_the_columns_in_their_order() -> None:
    assert [field.name for field in dataclasses.fields(Evidence)] == NAMES


def test_lists_and_empty_lists_are_read_as_columns() -> None:
    empty: dict[str, list[Any]] = {name: [] for name in NAMES}
    assert Evidence(**empty).rejected_positions.shape == (0, REJECTED)  # type: ignore[arg-type]
    idle: dict[str, Any] = {column.name: [] for column in LAYOUT if column.per == "event"} | {
        column.name: np.zeros(column.shape(0, 2), dtype=column.number) for column in LAYOUT if column.per == "step"
    }
    idle["rejected_positions"] = idle["rejected_tokens"] = [[-1] * REJECTED] * 2
    idle["rejected_confidences"] = [[float("nan")] * REJECTED] * 2
    assert Evidence(**idle).num_steps == 2


def test_nan_and_zero_have_one_form_each(evidence: Evidence) -> None:
    one = Evidence(**changed(evidence, "confidences", (0,), np.nan) | {"sketches": 0 * evidence.sketches})
    # Negative with a payload, and one that signals.
    for bits in (0xFFC00001, 0x7F800001):
        columns = content(evidence) | {"sketches": -0.0 * np.abs(evidence.sketches)}
        columns["confidences"].view("<u4")[0] = bits
        other = Evidence(**columns)
        assert one.to_bytes() == other.to_bytes()
        assert one.digest == other.digest


def test_the_digest_is_over_the_content_as_documented(evidence: Evidence) -> None:
    data = b"difftrace-evidence-1\n" + np.array([12, 6], dtype="<i8").tobytes()
    for name, values in content(evidence).items():
        wide = name in ("logits_digests", "sketched", "noise_digests")
        number = "<f4" if values.dtype == np.float32 else "<i8" if wide else "<i4"
        data += values.astype(number).tobytes()
    assert evidence.digest == "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_every_column_counts_for_equality(evidence: Evidence, name: str) -> None:
    value = {"rejected_confidences": evidence.rejected_confidences[0, 0] + 0.5, "runner_up_scores": -99.0}.get(name, 3)
    place = (0,) if getattr(evidence, name).ndim == 1 else (0, 0)
    if name == "rejected_positions":
        value = next(p for p in range(12) if p not in evidence.rejected_positions[0])
    value = {"confidences": 0.25, "candidates": 11}.get(name, value)
    other = Evidence(**changed(evidence, name, place, value))
    assert other != evidence
    assert hash(other) != hash(evidence)
    assert evidence != "evidence"


@given(st.integers(0, 30), st.sampled_from([(16, 8), (5, 5), (7, 1), (24, 3)]), st.sampled_from([0.0, 0.7]))
def test_evidence_round_trips(simulated: Simulated, seed: int, shape: tuple[int, int], temperature: float) -> None:
    _, one = simulated(seed, length=shape[0], steps=shape[1], temperature=temperature)
    read = Evidence.from_bytes(one.to_bytes())
    assert read == one
    for name in NAMES:
        assert np.array_equal(getattr(read, name), getattr(one, name), equal_nan=one_is_float(one, name))
    assert read.to_bytes() == one.to_bytes()
    assert not read.confidences.flags.writeable


def one_is_float(evidence: Evidence, name: str) -> bool:
    return bool(getattr(evidence, name).dtype == np.float32)


def test_what_is_not_finite_round_trips(evidence: Evidence) -> None:
    columns = content(evidence)
    columns["confidences"][:3] = [-np.inf, np.nan, 0.0]
    columns["top_scores"][:2] = [np.inf, np.nan]
    columns["runner_up_scores"][0] = -np.inf
    columns["sketches"][0, :2] = [np.nan, -np.inf]
    columns["rejected_confidences"][0] = -np.inf
    columns["logits_digests"][0] = [-(1 << 63), (1 << 63) - 1]
    odd = Evidence(**columns)
    assert Evidence.from_bytes(odd.to_bytes()) == odd


def test_a_step_of_a_real_size_takes_less_than_a_quarter_of_a_kilobyte(simulated: Simulated) -> None:
    rng = np.random.default_rng(0)
    _, one = simulated(length=128, steps=64, vocabulary=8, temperature=0.5)
    columns = content(one)
    # Sketches of 10 million logits look like this: their bits are as good as random.
    columns["sketches"] = rng.normal(size=one.sketches.shape) * 4 * np.sqrt(1e7)
    size = len(Evidence(**columns).to_bytes()) / 64
    raw = sum(values.nbytes for values in content(one).values()) / 64
    assert raw <= 260
    assert size < 190


def rows(count: int, *values: float) -> list[list[float]]:
    return [[*values, *[-1] * (REJECTED - len(values))]] * count


CASES: Mapping[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a column of another length": (
        lambda c: c.update(confidences=c["confidences"][1:]),
        r"confidences has the shape \[11\] instead of \[12\]",
    ),
    "a step too few": (lambda c: c.update(ties=c["ties"][1:]), r"ties has the shape \[5\] instead of \[6\]"),
    "other projections": (
        lambda c: c.update(sketches=c["sketches"][:, 1:]),
        rf"sketches has the shape \[6, {PROJECTIONS - 1}\]",
    ),
    "a flat digest": (
        lambda c: c.update(logits_digests=np.zeros(6, dtype=int)),
        rf"\[6\] instead of \[6, {DIGEST_LANES}\]",
    ),
    "a single value": (lambda c: c.update(candidates=3), "candidates is a single value"),
    "ragged rows": (lambda c: c.update(rejected_tokens=[[1], [1, 2]]), "rejected_tokens cannot be read"),
    "integers as scores": (lambda c: c.update(top_scores=np.zeros(12, dtype=int)), "top_scores must hold floating"),
    "fractions as tokens": (lambda c: c.update(top_tokens=np.zeros(12)), "top_tokens must hold integers, not float64"),
    "truth as counts": (lambda c: c.update(ties=np.zeros(6, dtype=bool)), "ties must hold integers, not bool"),
    "a negative token": (
        lambda c: c["top_tokens"].__setitem__(3, -1),
        "top_tokens holds -1; it must be in 0..2147483647",
    ),
    "a token beyond 31 bits": (
        lambda c: c.update(runner_up_tokens=c["runner_up_tokens"].astype(np.int64) + (1 << 31)),
        "runner_up_tokens holds 21474836",
    ),
    "a digest beyond 64 bits": (
        lambda c: c.update(noise_digests=np.full(6, (1 << 64) - 1, dtype=np.uint64)),
        "noise_digests holds 18446744073709551615",
    ),
    "negative counts": (lambda c: c["non_finite"].__setitem__(2, -1), "non_finite holds -1"),
    "a rejected position of -2": (
        lambda c: c["rejected_positions"].__setitem__((0, 0), -2),
        "rejected_positions holds -2",
    ),
    "an endless confidence": (lambda c: c["confidences"].__setitem__(0, np.inf), r"confidences holds \+inf"),
    "a rejected endless confidence": (
        lambda c: c["rejected_confidences"].__setitem__((0, 0), np.inf),
        r"rejected_confidences holds \+inf",
    ),
    "a better runner-up": (
        lambda c: c["runner_up_scores"].__setitem__(4, c["top_scores"][4] + 1),
        "event 4 has a runner-up of a higher score",
    ),
    "more ties than candidates": (lambda c: c["ties"].__setitem__(1, 11), "step 1 has more ties than candidates"),
    "a position without a token": (
        lambda c: c["rejected_tokens"].__setitem__((2, 0), -1),
        "step 2 lists a rejected position without a token",
    ),
    "a confidence of nothing": (
        lambda c: c["rejected_confidences"].__setitem__((5, 0), -1.0),
        "step 5 has a confidence where it lists no rejected candidate",
    ),
    "a gap in the list": (
        lambda c: (
            c["rejected_positions"].__setitem__((0, 1), -1),
            c["rejected_tokens"].__setitem__((0, 1), -1),
            c["rejected_confidences"].__setitem__((0, 1), np.nan),
        ),
        "step 0 leaves a gap",
    ),
    "a list longer than its candidates": (lambda c: c["candidates"].__setitem__(0, 3), "step 0 lists more rejected"),
    "the worst first": (
        lambda c: c["rejected_confidences"].__setitem__(1, c["rejected_confidences"][1, ::-1]),
        "step 1 does not list its rejected candidates best first",
    ),
    "a candidate twice": (
        lambda c: c["rejected_positions"].__setitem__((0, 3), c["rejected_positions"][0, 0]),
        "step 0 lists a rejected candidate twice",
    ),
    "more than the limit": (
        lambda c: c.update(candidates=np.zeros(1 << 20, dtype=int)),
        "more than the limit of 4194304",
    ),
}


@pytest.mark.parametrize(("edit", "message"), CASES.values(), ids=CASES)
def test_a_fault_in_a_column_is_named(
    evidence: Evidence, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    columns = content(evidence)
    edit(columns)
    with pytest.raises(TrajectoryError, match=message):
        Evidence(**columns)


def test_the_last_bits_of_a_logarithm_may_leave_the_order(evidence: Evidence) -> None:
    columns = content(evidence)
    columns["rejected_confidences"][0, 1] = np.nextafter(columns["rejected_confidences"][0, 0], np.float32(1))
    assert Evidence(**columns) != evidence


def test_evidence_fits_its_own_trajectory_alone(recorded: tuple[Trajectory, Evidence], simulated: Simulated) -> None:
    trajectory, evidence = recorded
    evidence.check_fit(trajectory)
    for other, message in (
        (simulated(length=12, steps=4)[0], "evidence is of 6 steps, but the trajectory has 4"),
        (simulated(length=6, steps=6)[0], "evidence is of 12 events, but the trajectory has 6"),
        (
            dataclasses.replace(trajectory, positions=trajectory.positions[::-1]),
            "rejected that it commits|fewer rejected",
        ),
    ):
        with pytest.raises(TrajectoryError, match=message):
            evidence.check_fit(other)


FIT_CASES: Mapping[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a position outside the canvas": (
        lambda c: c["rejected_positions"].__setitem__((3, 0), 12),
        "step 3 rejects a position outside the canvas of 12",
    ),
    "more candidates than positions": (
        lambda c: c["candidates"].__setitem__(0, 13),
        "step 0 has more candidates than the 12 positions",
    ),
    "candidates that are not listed": (
        lambda c: c["candidates"].__setitem__(5, 3),
        "step 5 lists fewer rejected candidates than there are",
    ),
}


@pytest.mark.parametrize(("edit", "message"), FIT_CASES.values(), ids=FIT_CASES)
def test_evidence_that_its_trajectory_contradicts_is_refused(
    recorded: tuple[Trajectory, Evidence], edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    columns = content(recorded[1])
    edit(columns)
    with pytest.raises(TrajectoryError, match=message):
        Evidence(**columns).check_fit(recorded[0])


def test_a_committed_position_cannot_be_listed_as_rejected(recorded: tuple[Trajectory, Evidence]) -> None:
    trajectory, evidence = recorded
    columns = changed(evidence, "rejected_positions", (0, 0), int(trajectory.positions[0]))
    with pytest.raises(TrajectoryError, match="step 0 lists a position as rejected that it commits"):
        Evidence(**columns).check_fit(trajectory)
