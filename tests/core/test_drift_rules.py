"""Runs of equal decisions that were made from something else."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest

from difftrace.core.classification import Classification, classify
from difftrace.core.recording import Baseline, Budget, SamplerIdentity, SequenceRecord

Between = Callable[..., Classification]
Step = dict[str, Any]

BUDGET = Budget(scores=0.1, confidences=0.1, logits=0.02, measured={})


@pytest.fixture
def between(handmade: Callable[..., SequenceRecord], held: Callable[..., Baseline]) -> Between:
    def classify_steps(golden: list[Step], observed: list[Step], **fields: Any) -> Classification:
        budget = fields.pop("budget", BUDGET)
        return classify(*(held(handmade(*steps), **fields) for steps in (golden, observed)), budget=budget)

    return classify_steps


def steps(*changes: Step, margin: float = 3.0, rejected: float = -0.9) -> list[Step]:
    """Three steps that commit positions 0, 1 and 2; `changes` change the second, `margin` and `rejected` are its."""
    made: list[Step] = [
        {"commits": [(at, 5, 10.0, 7, 10.0 - (margin if at == 1 else 3.0), -0.5)], "rejected": [(9, 5, -0.9)]}
        for at in range(3)
    ]
    made[1]["rejected"] = [(9, 5, rejected)]
    for change in changes:
        made[1] |= change
    return made


def test_other_logits_within_the_budget_are_drift(between: Between) -> None:
    found = between(steps(), steps({"logits": 2, "rms": 0.02}))
    assert (found.divergence_class, found.sequence, found.step, found.position) == ("DRIFT", 0, 1, None)
    assert found.epsilon == pytest.approx(0.02)
    assert found.outcome is not None
    assert found.outcome.kind == "IDENTICAL"


@pytest.mark.parametrize(
    ("golden", "observed", "quantity"),
    [
        (steps(), steps({"logits": 2, "rms": 0.021}), "logits"),
        (steps(), steps({"logits": 2}, margin=3.3), "scores"),
        (steps(), steps({"logits": 2, "rms": 0.02}, rejected=-1.01), "confidences"),
    ],
)
def test_other_logits_beyond_the_budget_are_numeric(
    between: Between, golden: list[Step], observed: list[Step], quantity: str
) -> None:
    found = between(golden, observed)
    assert (found.divergence_class, found.step) == ("NUMERIC", 1)
    assert found.decided_by is not None
    assert found.decided_by.quantity == quantity
    assert found.outcome is not None
    assert found.outcome.kind == "IDENTICAL"


def test_the_first_step_beyond_the_budget_is_named(between: Between) -> None:
    golden, observed = steps(), steps({"logits": 2, "rms": 0.03})
    observed[0] |= {"logits": 2, "rms": 0.01}
    observed[2] |= {"logits": 2, "rms": 0.9}
    found = between(golden, observed)
    assert (found.divergence_class, found.step) == ("NUMERIC", 1)
    assert found.epsilon == pytest.approx(0.9)
    assert "at step 2" in found.reason


def test_other_confidences_from_equal_logits_are_drift_or_logic(between: Between) -> None:
    assert between(steps(), steps(rejected=-0.9)).divergence_class == "IDENTICAL"
    found = between(steps(), steps(rejected=-0.91))
    assert (found.divergence_class, found.step) == ("DRIFT", 1)
    found = between(steps(), steps(rejected=-1.1))
    assert (found.divergence_class, found.step) == ("LOGIC", 1)
    assert "0.2 at step 1" in found.reason
    assert "the logits, which are equal in every bit" in found.reason
    assert between(steps(), steps(margin=3.5)).divergence_class == "LOGIC"


def test_guidance_lets_the_logits_move_confidences_further(between: Between) -> None:
    golden, observed = steps(), steps({"logits": 2, "rms": 0.0008}, rejected=-1.1)
    assert between(golden, observed).divergence_class == "LOGIC"
    guided = SamplerIdentity("llada", 1, {"cfg_scale": 2.0})
    assert between(golden, observed, sampler=guided).divergence_class == "NUMERIC"


def test_a_confidence_of_zero_in_one_run_alone_is_logic(between: Between) -> None:
    found = between(steps(), steps({"logits": 2}, rejected=-math.inf))
    assert (found.divergence_class, found.step) == ("LOGIC", 1)


def test_another_list_of_rejected_candidates_is_drift(between: Between) -> None:
    found = between(steps(), steps({"rejected": [(8, 5, -0.9)], "logits": 2, "rms": 0.01}))
    assert found.divergence_class == "DRIFT"


def test_sketches_say_nothing_where_digests_are_equal(between: Between) -> None:
    assert between(steps(), steps({"rms": 9.0})).divergence_class == "IDENTICAL"


def test_statistics_that_are_equally_unknown_are_equal(between: Between) -> None:
    assert between(steps(rejected=math.nan), steps(rejected=math.nan)).divergence_class == "IDENTICAL"


def test_other_random_numbers_that_changed_no_decision_are_rng(between: Between) -> None:
    found = between(steps(), steps({"noise": 4, "logits": 2, "rms": 9.0}))
    assert (found.divergence_class, found.step) == ("RNG", 1)


def test_other_candidates_that_changed_no_decision_are_logic(between: Between) -> None:
    found = between(steps(), steps({"rejected": [(9, 5, -0.9), (8, 5, -1.0)]}))
    assert (found.divergence_class, found.step) == ("LOGIC", 1)
    assert "among 2 candidates and the observed run among 3" in found.reason


def test_without_a_budget_drift_cannot_be_told_from_a_regression(between: Between) -> None:
    found = between(steps(), steps({"logits": 2, "rms": 0.001}), budget=None, dtype=None)
    assert (found.divergence_class, found.step) == (None, 1)
    assert any("no default" in line for line in found.cannot_tell)
    assert found.epsilon == pytest.approx(0.001)
    assert between(steps(), steps({"logits": 2, "rms": 1e-5}), budget=None).divergence_class == "DRIFT"


def test_a_step_of_which_nothing_can_be_compared_cannot_be_told(between: Between) -> None:
    unknown = {"logits": 2, "sketched": 0, "commits": [(1, 5, 10.0, 8, 7.0, math.nan)], "rejected": [(9, 6, -0.9)]}
    found = between(steps(), steps(unknown))
    assert (found.divergence_class, found.step) == (None, 1)
    assert "How far the runs are apart at step 1: no value there can be compared." in found.cannot_tell


# LENGTH


def test_a_run_that_ends_early_is_a_length(between: Between) -> None:
    for golden, observed in ((steps(), steps()[:2]), (steps()[:2], steps())):
        found = between(golden, observed)
        assert (found.divergence_class, found.sequence, found.step, found.position) == ("LENGTH", 0, 2, None)
        assert f"The golden has {len(golden)} steps and the observed run {len(observed)}; the 2" in found.reason


def test_a_length_needs_no_evidence(handmade: Callable[..., SequenceRecord], held: Callable[..., Baseline]) -> None:
    golden, observed = (dataclasses.replace(handmade(*made), evidence=None) for made in (steps(), steps()[:2]))
    assert classify(held(golden), held(observed)).divergence_class == "LENGTH"


def test_a_length_is_no_drift_but_a_regression_outranks_it(between: Between) -> None:
    assert between(steps(), steps({"logits": 2, "rms": 0.01})[:2]).divergence_class == "LENGTH"
    found = between(steps(), steps({"logits": 2, "rms": 0.5})[:2])
    assert (found.divergence_class, found.step) == ("NUMERIC", 1)
    assert between(steps(), steps({"noise": 1})[:2]).divergence_class == "RNG"


def test_an_earlier_decision_outranks_a_length(between: Between) -> None:
    observed = steps({"commits": [(1, 6, 10.0, 7, 7.0, -0.5)]})[:2]
    assert between(steps(), observed).divergence_class == "LOGIC"
