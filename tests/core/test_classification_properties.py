"""What holds for any pair of runs, whatever their evidence says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from difftrace.core.classes import CLASSES
from difftrace.core.classification import Classification, classify
from difftrace.core.errors import TrajectoryError
from difftrace.core.evidence import Evidence
from difftrace.core.evidence_columns import LAYOUT
from difftrace.core.policies import POLICIES, judge
from difftrace.core.recording import Baseline, Budget, SamplerIdentity, SequenceRecord
from difftrace.core.trajectory import Trajectory
from difftrace.reports.verdict import verdict_lines

Simulated = Callable[..., tuple[Trajectory, Evidence]]
Held = Callable[..., Baseline]
Edit = tuple[int, int, float]

# Classes that do not depend on which of the two runs is the golden one.
SYMMETRIC = {"IDENTICAL", "INPUT", "CONFIG", "WEIGHTS", "NON_FINITE", "RNG", "NUMERIC", "DRIFT", "LENGTH", "TIE_BREAK"}

runs = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 3),
        "steps": st.sampled_from([2, 4, 8]),
        "noise": st.sampled_from([0.0, 1e-5, 0.05, 3.0]),
        "temperature": st.sampled_from([0.0, 0.7]),
        "stream": st.integers(0, 1),
    }
)
edits = st.lists(
    st.tuples(
        st.integers(0, len(LAYOUT) - 1),
        st.integers(0, 1 << 16),
        st.one_of(
            st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1.0, -1.0]), st.integers(0, 9), st.floats(-9, 9)
        ),
    ),
    max_size=4,
)
sides = st.tuples(runs, edits, st.booleans())


def edited(evidence: Evidence, changes: list[Edit]) -> Evidence:
    """Return evidence with changed values, or as it was where they would contradict each other."""
    columns = {column.name: getattr(evidence, column.name).copy() for column in LAYOUT}
    for which, place, value in changes:
        values = columns[LAYOUT[which].name]
        if values.size and (values.dtype == np.float32 or math.isfinite(value)):
            values.reshape(-1)[place % values.size] = value
    try:
        return Evidence(**columns)
    except TrajectoryError:
        return evidence


def made(simulated: Simulated, held: Held, side: tuple[dict[str, Any], list[Edit], bool], **fields: Any) -> Baseline:
    arguments, changes, bare = side
    trajectory, evidence = simulated(length=8, vocabulary=6, **arguments)
    try:
        record = SequenceRecord(trajectory, None, None, None if bare else edited(evidence, changes))
    except TrajectoryError:
        record = SequenceRecord(trajectory, None, None, evidence)
    return held(record, **fields)


def coherent(found: Classification) -> None:
    assert found.divergence_class is None or found.divergence_class in CLASSES
    assert found.reason.endswith(".")
    assert found.reason.isprintable()
    assert (found.kind is not None) == (found.divergence_class == "NEAR_TIE")
    if found.divergence_class is None:
        assert found.cannot_tell
    for one in found.noise:
        assert one.epsilon >= 0
        assert math.isfinite(one.epsilon)
        assert one.count > 0
    for policy in POLICIES:
        judge(found, policy)
    for line in verdict_lines(found):
        assert len(line) <= 100


@given(sides, sides, sides | st.none(), st.sampled_from(["bfloat16", "float32", None]), st.booleans())
def test_any_two_runs_can_be_classified(
    simulated: Simulated, held: Held, one: Any, other: Any, again: Any, dtype: str | None, named: bool
) -> None:
    fields: dict[str, Any] = {"dtype": dtype} | ({} if named else {"sampler": None, "model": None})
    golden, observed = (made(simulated, held, side, **fields) for side in (one, other))
    repeated = None if again is None else made(simulated, held, again, **fields)
    found = classify(golden, observed, repeated=repeated)
    coherent(found)
    assert classify(golden, observed, repeated=repeated) == found
    assert found.divergence_class != "IDENTICAL" or golden.same_decisions(observed)


@given(sides, st.booleans())
def test_a_run_is_identical_with_itself(simulated: Simulated, held: Held, side: Any, repeated: bool) -> None:
    golden = made(simulated, held, side)
    found = classify(golden, made(simulated, held, side), repeated=golden if repeated else None)
    coherent(found)
    assert found.divergence_class == "IDENTICAL"


@given(sides, sides)
def test_what_is_measured_and_what_came_of_it_is_the_same_both_ways(
    simulated: Simulated, held: Held, one: Any, other: Any
) -> None:
    golden, observed = (made(simulated, held, side, dtype="bfloat16") for side in (one, other))
    there, back = classify(golden, observed), classify(observed, golden)
    assert there.noise == back.noise
    assert there.outcome == back.outcome
    assert (there.sequence, there.step, there.position) == (back.sequence, back.step, back.position)
    if there.divergence_class in SYMMETRIC:
        assert back.divergence_class == there.divergence_class


@given(runs, runs, st.floats(0.01, 10))
def test_a_larger_budget_never_makes_a_regression_of_what_was_none(
    simulated: Simulated, held: Held, one: dict[str, Any], other: dict[str, Any], factor: float
) -> None:
    golden, observed = (made(simulated, held, (side, [], False)) for side in (one, other))
    small = Budget(0.1, 0.1, 0.05, {})
    large = Budget(*(value * (1 + factor) for value in (0.1, 0.1, 0.05)), {})
    before, after = (classify(golden, observed, budget=budget) for budget in (small, large))
    assume(before.divergence_class != "NUMERIC")
    assert after.divergence_class == before.divergence_class


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_noise_within_the_budget_is_never_called_a_fault(simulated: Simulated, held: Held, temperature: float) -> None:
    budget = Budget(0.4, 0.4, 0.1, {})
    found: Counter[str | None] = Counter()
    for seed in range(150):
        golden, observed = (
            held(
                SequenceRecord(*(run := simulated(seed, noise=noise, temperature=temperature))[:1], None, None, run[1])
            )
            for noise in (0.0, 0.05)
        )
        found[classify(golden, observed, budget=budget).divergence_class] += 1
    assert set(found) <= {"DRIFT", "NEAR_TIE", None}
    assert found["NEAR_TIE"] > 20
    assert found["DRIFT"] > 20
    # What remains lies beyond the listed candidates or the best two tokens.
    assert found[None] <= 8


FAULTS: dict[str, dict[str, Any]] = {
    "the least confident first": {"rank": lambda step, confidences: confidences if step < 3 else -confidences - 20},
    "the left half first": {"rank": lambda step, confidences: confidences - (np.arange(16) > 7) * np.float32(3)},
    "logits scaled": {"spoil": lambda step, logits: logits * np.float32(1.5)},
    "one token forbidden": {"spoil": lambda step, logits: np.where(np.arange(24) == 5, np.float32(-50), logits)},
    "one position confused": {
        "spoil": lambda step, logits: np.where(np.arange(16)[:, None] == 3, logits[::-1], logits)
    },
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_never_called_noise(simulated: Simulated, held: Held, fault: dict[str, Any]) -> None:
    budget = Budget(0.4, 0.4, 0.1, {})
    found: Counter[str | None] = Counter()
    for seed in range(60):
        one, other = simulated(seed), simulated(seed, noise=1e-4, **fault)
        golden, observed = (held(SequenceRecord(run[0], None, None, run[1])) for run in (one, other))
        if not golden.same_decisions(observed):
            found[classify(golden, observed, budget=budget).divergence_class] += 1
    assert sum(found.values()) > 30
    assert set(found) <= {"LOGIC", "NUMERIC"}


def test_a_sampler_that_is_not_known_to_fix_its_number_can_be_classified(simulated: Simulated, held: Held) -> None:
    sampler = SamplerIdentity("threshold", 1, {})
    golden, observed = (
        held(SequenceRecord(run[0], None, None, run[1]), sampler=sampler)
        for run in (simulated(steps=4), simulated(steps=8, noise=0.01))
    )
    assert classify(golden, observed).divergence_class == "NUMERIC"
    found = classify(golden, observed, budget=Budget(9, 9, 9, {}))
    coherent(found)
    assert found.divergence_class is None
