"""How far two runs are apart, in numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from difftrace.core.budgets import DEFAULTS, SPREAD, amplification, tolerance
from difftrace.core.evidence import Evidence
from difftrace.core.noise import Differences, Measured, differences, largest
from difftrace.core.recording import Baseline, Budget, SamplerIdentity, SequenceRecord
from difftrace.core.trajectory import Trajectory

Handmade = Callable[..., SequenceRecord]
Held = Callable[..., Baseline]


@pytest.fixture
def apart(handmade: Handmade) -> Callable[[dict[str, Any], dict[str, Any]], Differences]:
    def compare(golden: dict[str, Any], observed: dict[str, Any]) -> Differences:
        sides = [(r.trajectory, r.evidence) for r in (handmade(golden), handmade(observed)) if r.evidence is not None]
        return differences(sides[0], sides[1], 1)

    return compare


Apart = Callable[[dict[str, Any], dict[str, Any]], Differences]


def scored(*commits: tuple[int, int, float, int, float]) -> dict[str, Any]:
    return {"commits": [(*commit, -0.5) for commit in commits]}


def ranked(*rejected: tuple[int, int, float], confidence: float = -0.1) -> dict[str, Any]:
    return {"commits": [(0, 5, 9.0, 7, 1.0, confidence)], "rejected": list(rejected)}


def test_scores_differ_by_half_the_change_of_their_margin(apart: Apart) -> None:
    found = apart(scored((0, 5, 9.0, 7, 8.0)), scored((0, 5, 19.0, 7, 17.5))).scores
    assert found.values.tolist() == [0.25]
    assert found.own.tolist() == [False]


def test_the_margin_of_exchanged_tokens_changes_its_sign(apart: Apart) -> None:
    found = apart(scored((0, 5, 9.0, 7, 8.0)), scored((0, 7, 9.0, 5, 8.5))).scores
    assert found.values.tolist() == [0.75]
    assert found.own.tolist() == [True]


def test_other_tokens_or_positions_or_infinite_scores_are_not_compared(apart: Apart) -> None:
    for other in ((0, 5, 9.0, 8, 8.0), (1, 5, 9.0, 7, 8.0), (0, 5, math.inf, 7, 8.0), (0, 5, math.nan, 7, 8.0)):
        assert apart(scored((0, 5, 9.0, 7, 8.0)), scored(other)).scores.values.tolist() == []


def test_confidences_are_compared_where_both_know_them_for_the_same_token(apart: Apart) -> None:
    golden = ranked((1, 5, -1.0), (2, 5, -2.0), (3, 5, -3.0), (4, 5, -math.inf))
    observed = ranked((3, 5, -3.5), (2, 6, -4.0), (9, 5, -5.0), (4, 5, -math.inf), confidence=-0.25)
    found = apart(golden, observed).confidences
    assert sorted(found.values.tolist()) == pytest.approx([0.15, 0.5])
    assert not found.own.any()


def test_a_commit_compared_with_a_rejection_belongs_to_the_flip(apart: Apart) -> None:
    golden = {"commits": [(0, 5, 9.0, 7, 1.0, -0.5)], "rejected": [(1, 5, -0.75)]}
    observed = {"commits": [(1, 5, 9.0, 7, 1.0, -0.5)], "rejected": [(0, 5, -0.625)]}
    found = apart(golden, observed).confidences
    assert sorted(found.values.tolist()) == [0.125, 0.25]
    assert found.own.all()


def test_sketches_estimate_the_root_mean_square_of_the_difference(
    simulated: Callable[..., tuple[Trajectory, Evidence]],
) -> None:
    estimates = []
    for seed in range(20):
        golden, observed = simulated(seed, vocabulary=200), simulated(seed, vocabulary=200, noise=0.001)
        if golden[0] == observed[0]:
            estimates += differences(golden, observed, 8).logits.values.tolist()
    assert len(estimates) > 80
    assert np.mean(estimates) == pytest.approx(0.001, rel=0.05)
    assert np.std(estimates) < 0.0002


def test_equal_logits_differ_by_nothing_whatever_their_sketches(apart: Apart) -> None:
    one = ranked()
    assert apart(one, one | {"rms": 3.0}).logits.values.tolist() == [0.0]
    assert apart(one, one | {"rms": 3.0, "sketched": 5}).logits.values.tolist() == [0.0]
    assert apart(one, one | {"rms": 3.0, "logits": 2}).logits.values.tolist() == pytest.approx([3.0])


@pytest.mark.parametrize("other", [{"sketched": 5}, {"sketched": 0}, {"rms": math.nan}, {"rms": math.inf}])
def test_sketches_of_other_or_no_logits_are_not_compared(apart: Apart, other: dict[str, Any]) -> None:
    assert apart(ranked(), ranked() | other | {"logits": 2}).logits.values.tolist() == []
    assert apart(ranked() | {"sketched": 0}, ranked() | {"sketched": 0, "logits": 2}).logits.values.tolist() == []


def test_the_largest_share_of_its_budget_counts() -> None:
    small, large = Measured("scores", 0.2, 0.1, 3, 0), Measured("logits", 0.9, 1.0, 3, 0)
    assert largest((small, large)) is small
    assert (small.exceeds, large.exceeds) == (True, False)
    unbudgeted = Measured("scores", 0.2, None, 3, 0)
    assert largest((unbudgeted, Measured("logits", 0.9, None, 3, 0))) is not unbudgeted
    assert not unbudgeted.exceeds
    nothing = Measured("scores", 0.0, 0.0, 3, 0)
    assert largest((nothing, large)) is large
    assert largest((Measured("scores", 1e-9, 0.0, 3, 0), large)) is not large
    assert largest(()) is None


def test_defaults_cover_the_dtypes_of_models_in_order_of_their_precision() -> None:
    order = [DEFAULTS[name].logits for name in ("float64", "float32", "float16", "bfloat16")]
    assert order == sorted(order)
    for budget in DEFAULTS.values():
        assert budget.scores == budget.confidences == SPREAD * budget.logits
        assert budget.measured["basis"]


def test_the_measured_facts_fall_on_their_side_of_the_defaults() -> None:
    assert DEFAULTS["float32"].logits >= 2.7e-5  # instruction sets of a CPU
    assert 0.095 < DEFAULTS["bfloat16"].logits < 0.20  # another attention kernel; int8 weights


def test_the_coarser_dtype_of_the_two_sets_the_default(held: Held, handmade: Handmade) -> None:
    record = handmade(ranked())
    fine, coarse, unknown = (held(record, dtype=name) for name in ("float32", "bfloat16", None))
    for pair in ((fine, coarse), (coarse, fine)):
        found = tolerance(*pair, None)
        assert found is not None
        assert (found.budget.logits, found.source) == (0.14, "default for bfloat16")
    assert tolerance(fine, unknown, None) is None
    assert tolerance(held(record, dtype="int4"), fine, None) is None
    assert tolerance(held(record, environment={"dtype": ["float32"]}), fine, None) is None


def test_defaults_grow_with_guidance_but_for_the_models_own_logits(held: Held, handmade: Handmade) -> None:
    guided = held(handmade(ranked()), sampler=SamplerIdentity("llada", 1, {"cfg_scale": 1.5}))
    assert amplification(guided) == 4.0
    found = tolerance(guided, guided, None)
    assert found is not None
    base = DEFAULTS["float32"]
    assert (found.budget.scores, found.budget.logits) == (4 * base.scores, base.logits)
    assert found.source == "default for float32, scaled for guidance"
    own = Budget(1, 1, 1, {})
    found = tolerance(guided, guided, own)
    assert found is not None
    assert found.budget is own
    for sampler in (None, SamplerIdentity("x", 1, {}), SamplerIdentity("x", 1, {"cfg_scale": "2"})):
        assert amplification(held(handmade(ranked()), sampler=sampler)) == 1.0
