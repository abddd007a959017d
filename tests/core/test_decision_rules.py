"""The first step that decides otherwise: each class beside its nearest neighbours."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from difftrace.core.budgets import DEFAULTS
from difftrace.core.classification import Classification, classify
from difftrace.core.recording import Baseline, Budget, SamplerIdentity, SequenceRecord

Handmade = Callable[..., SequenceRecord]
Held = Callable[..., Baseline]
Step = dict[str, Any]

# The budget that most cases are held against.
BUDGET = Budget(scores=0.1, confidences=0.1, logits=0.02, measured={})

TOKEN = "token"
ORDER = "order"


def commit(position: int, token: int = 5, *, margin: float = 3.0, runner_up: int = 7, confidence: float = -0.5) -> Any:
    return (position, token, 10.0, runner_up, 10.0 - margin, confidence)


def reject(position: int, confidence: float, token: int = 5) -> Any:
    return (position, token, confidence)


@pytest.fixture
def between(handmade: Handmade, held: Held) -> Callable[..., Classification]:
    def classify_steps(golden: Step | list[Step], observed: Step | list[Step], **fields: Any) -> Classification:
        budget = fields.pop("budget", BUDGET)
        runs = [
            held(handmade(*(steps if isinstance(steps, list) else [steps])), **fields) for steps in (golden, observed)
        ]
        return classify(*runs, budget=budget)

    return classify_steps


Between = Callable[..., Classification]


def token_flip(margin: float = 0.01, there: float = 0.01, **other: Any) -> tuple[Step, Step]:
    """Position 3 takes 5 in the golden and 7 in the observed run; position 4 takes the same in both."""
    shared = commit(4, 6, margin=2.0)
    golden = {"commits": [commit(3, 5, margin=margin, runner_up=7), shared]}
    observed = {"commits": [commit(3, 7, margin=there, runner_up=5), shared], "logits": 2, **other}
    return golden, observed


def order_flip(gap: float = 0.01, there: float = 0.01, **other: Any) -> tuple[Step, Step]:
    """Position 3 is committed by the golden and rejected by the observed run, 4 the other way round."""
    golden = {"commits": [commit(3, confidence=-0.5)], "rejected": [reject(4, -0.5 - gap), reject(8, -2.0)]}
    observed = {
        "commits": [commit(4, confidence=-0.5)],
        "rejected": [reject(3, -0.5 - there), reject(8, -2.0)],
        "logits": 2,
        **other,
    }
    return golden, observed


# Near ties, and what they are not.


def test_a_close_token_that_noise_turned_is_a_near_tie(between: Between) -> None:
    found = between(*token_flip(rms=0.01))
    assert (found.divergence_class, found.kind) == ("NEAR_TIE", TOKEN)
    assert (found.sequence, found.step, found.position) == (0, 0, 3)
    assert found.epsilon == pytest.approx(0.01, rel=1e-3)
    assert found.tau == 0.1
    assert found.tau_source == "given"
    assert found.decided_by is not None
    assert found.decided_by.quantity == "scores"
    assert "takes token 5 at position 3, the observed run token 7: that needs noise of 0.01" in found.reason


def test_a_close_order_that_noise_turned_is_a_near_tie(between: Between) -> None:
    found = between(*order_flip(rms=0.01))
    assert (found.divergence_class, found.kind) == ("NEAR_TIE", ORDER)
    assert (found.step, found.position) == (0, 3)
    assert found.epsilon == pytest.approx(0.01, rel=1e-3)
    assert found.decided_by is not None
    assert found.decided_by.quantity == "confidences"
    assert (
        "commits position 3, the observed run 4: that needs noise of 0.01, and elsewhere it reaches 0.04"
        in found.reason
    )


@pytest.mark.parametrize("flip", [token_flip, order_flip])
def test_a_flip_must_need_no_more_than_the_noise_elsewhere(
    between: Between, flip: Callable[..., tuple[Step, Step]]
) -> None:
    # Root mean square 0.01, so that a single value moves by 0.04, and two of them apart by 0.08.
    for here, there in ((0.0699, 0.01), (0.01, 0.0699), (0.0799, 0.0)):
        assert between(*flip(here, there, rms=0.01)).divergence_class == "NEAR_TIE"
    for here, there in ((0.0701, 0.01), (0.01, 0.0701), (0.0801, 0.0)):
        found = between(*flip(here, there, rms=0.01))
        assert found.divergence_class == "LOGIC"
        assert "that needs noise of 0.04, and elsewhere it reaches 0.04" in found.reason


def test_the_flip_is_not_a_witness_of_its_own_noise(between: Between) -> None:
    # Its own values differ by 0.09, less than the budget, and would explain it; nothing else moves.
    found = between(*token_flip(0.09, 0.09))
    assert found.divergence_class == "LOGIC"
    assert found.epsilon == pytest.approx(0.09, rel=1e-3)
    found = between(*order_flip(0.05, 0.05))
    assert found.divergence_class == "LOGIC"


def test_other_decisions_are_witnesses_of_the_noise(between: Between) -> None:
    golden, observed = token_flip(0.09, 0.09)
    observed["commits"][1] = commit(4, 6, margin=2.19)
    assert between(golden, observed).divergence_class == "NEAR_TIE"
    golden, observed = order_flip(0.05, 0.05)
    observed["rejected"][1] = reject(8, -2.06)
    assert between(golden, observed).divergence_class == "NEAR_TIE"


def test_earlier_steps_are_witnesses_of_the_noise(between: Between) -> None:
    golden, observed = order_flip(0.05, 0.05)
    before = [{"commits": [commit(0, confidence=-0.1)], "logits": 7}, {"commits": [commit(0, confidence=-0.16)]}]
    assert between([before[0], golden], [before[1], observed]).divergence_class == "NEAR_TIE"


def test_few_witnesses_are_not_enough_to_call_a_flip_no_noise(between: Between) -> None:
    # Without sketches only the confidence of position 8 bears witness.
    golden, observed = order_flip(0.05, 0.05, sketched=0)
    found = between(golden, observed)
    assert found.divergence_class is None
    assert "How large noise is: too little else was recorded." in found.cannot_tell
    before = {"commits": [commit(p, confidence=-0.1) for p in (0, 1, 2, *range(5, 12))], "sketched": 0}
    found = between([before, before, golden], [before, before, observed])
    assert found.divergence_class == "LOGIC"


def test_a_margin_that_a_common_shift_leaves_is_not_noise(between: Between) -> None:
    golden, observed = token_flip(0.01, 0.01)
    # All scores of position 4 are higher by 5, and by nothing else.
    observed["commits"][1] = (4, 6, 15.0, 7, 13.0, -0.5)
    found = between(golden, observed)
    assert [one.epsilon for one in found.noise if one.quantity == "scores"] == pytest.approx([0.01], abs=1e-6)
    assert found.divergence_class == "LOGIC"


def test_the_widest_gap_decides_for_sets(between: Between) -> None:
    def step(confidences: dict[int, float], committed: tuple[int, ...], **other: Any) -> Step:
        rest = sorted((p for p in confidences if p not in committed), key=lambda p: -confidences[p])
        return {
            "commits": [commit(p, confidence=confidences[p]) for p in committed],
            "rejected": [reject(p, confidences[p]) for p in rest],
            **other,
        }

    golden = step({1: -0.50, 2: -0.53, 3: -0.55, 4: -0.57}, (1, 2))
    observed = step({1: -0.54, 2: -0.56, 3: -0.52, 4: -0.53}, (3, 4), logits=2, rms=0.01)
    # 1 fell by 0.04 and 4 rose by 0.04, as much as noise of 0.04 does.
    observed["rms"] = 0.0101
    assert between(golden, observed).divergence_class == "NEAR_TIE"
    golden = step({1: -0.47, 2: -0.53, 3: -0.55, 4: -0.57}, (1, 2))
    # Now 1 fell by 0.07, although 2 and 3 are as close as before.
    found = between(golden, observed)
    assert found.divergence_class == "LOGIC"
    assert "commits position 1, 2, the observed run 3, 4: that needs noise of 0.055" in found.reason


def test_token_and_order_flips_of_one_step_must_both_be_explained(between: Between) -> None:
    def steps(margin: float, gap: float) -> tuple[Step, Step]:
        golden, observed = order_flip(gap, 0.01, rms=0.01)
        golden["commits"].append(commit(9, 5, margin=margin, runner_up=7))
        observed["commits"].append(commit(9, 7, margin=0.01, runner_up=5))
        return golden, observed

    assert (between(*steps(0.05, 0.05)).divergence_class, between(*steps(0.05, 0.05)).kind) == ("NEAR_TIE", ORDER)
    assert between(*steps(0.15, 0.05)).divergence_class == "LOGIC"
    assert between(*steps(0.05, 0.085)).divergence_class == "LOGIC"


def test_the_kind_is_that_of_the_first_position(between: Between) -> None:
    golden, observed = order_flip(0.01, 0.01, rms=0.01)
    golden["commits"].append(commit(1, 5, margin=0.01, runner_up=7))
    observed["commits"].append(commit(1, 7, margin=0.01, runner_up=5))
    found = between(golden, observed)
    assert (found.divergence_class, found.kind, found.position) == ("NEAR_TIE", TOKEN, 1)


# What the golden does not record.

LISTED = [reject(5, -0.6), reject(6, -0.6), reject(7, -0.6), reject(8, -0.6)]


def beyond_the_list(last: float, **other: Any) -> tuple[Step, Step]:
    """The observed run commits position 10, which is not among the golden's four best rejected."""
    listed = [*LISTED[:3], reject(8, last)]
    golden = {"commits": [commit(3, confidence=-0.5)], "rejected": listed, "candidates": 7, **other}
    observed = {
        "commits": [commit(10, confidence=-0.5)],
        "rejected": [reject(3, -0.51), *LISTED[:3]],
        "candidates": 7,
        "logits": 2,
        "rms": 0.02,
    }
    return golden, observed


def test_beyond_the_list_a_position_is_at_most_as_confident_as_its_last(between: Between) -> None:
    # The last is 0.3 below, and noise of 0.08 turns 0.16.
    found = between(*beyond_the_list(-0.8))
    assert found.divergence_class == "LOGIC"
    assert "position 3, the observed run 10: that needs noise of at least 0.16" in found.reason


def test_beyond_the_list_of_the_observed_run_likewise(between: Between) -> None:
    golden, observed = order_flip(0.01, 0.01, rms=0.01)
    golden["candidates"] = observed["candidates"] = 7
    golden["rejected"] += [reject(9, -2.0), reject(10, -2.0)]
    # The golden alone is as close as can be, but 3 fell below all that are listed.
    observed["rejected"] = [reject(p, -0.9) for p in (5, 6, 7, 11)]
    found = between(golden, observed, budget=Budget(9, 9, 9, {}))
    assert found.divergence_class == "LOGIC"
    observed["rejected"] = [reject(p, -0.51) for p in (5, 6, 7, 11)]
    assert between(golden, observed, budget=Budget(9, 9, 9, {})).divergence_class == "NEAR_TIE"


def test_beyond_a_close_list_the_gap_cannot_be_told(between: Between) -> None:
    found = between(*beyond_the_list(-0.6))
    assert found.divergence_class is None
    assert "The golden's confidence at position 10: it is not among the 4 best it rejected." in found.cannot_tell
    assert found.epsilon is not None


def test_beyond_a_list_in_which_all_tie_the_confidence_is_known(between: Between) -> None:
    golden, observed = beyond_the_list(-0.5)
    golden["rejected"] = [reject(p, -0.5) for p in (5, 6, 7, 8)]
    observed["rejected"] = [reject(p, -0.51) for p in (3, 5, 6, 7)]
    assert between(golden, observed).divergence_class is None
    # All six rejected candidates tie with what was committed, hence position 10 too.
    golden["ties"] = 6
    found = between(golden, observed)
    assert (found.divergence_class, found.kind) == ("NEAR_TIE", ORDER)


def test_a_position_that_was_no_candidate_cannot_be_close(between: Between) -> None:
    golden, observed = order_flip(0.01, 0.01, rms=0.01)
    golden["rejected"] = [reject(6, -0.51), reject(8, -2.0)]
    found = between(golden, observed)
    assert found.divergence_class == "LOGIC"
    assert "commits position 3, the observed run 4, which the other could not have committed" in found.reason


def test_where_every_candidate_is_listed_no_other_position_was_one(between: Between) -> None:
    golden, observed = beyond_the_list(-0.6)
    assert between(golden, observed).divergence_class is None
    golden["candidates"] = observed["candidates"] = 5
    found = between(golden, observed)
    assert found.divergence_class == "LOGIC"
    assert "could not have committed" in found.reason


def test_a_token_beyond_the_best_two_is_no_closer_than_the_second(between: Between) -> None:
    golden, observed = token_flip(0.5, 0.01, rms=0.01)
    golden["commits"][0] = commit(3, 5, margin=0.5, runner_up=9)
    assert between(golden, observed).divergence_class == "LOGIC"
    golden["commits"][0] = commit(3, 5, margin=0.01, runner_up=9)
    found = between(golden, observed)
    assert found.divergence_class is None
    assert "The golden's score of token 7 at position 3: it is not among the best two." in found.cannot_tell


def test_a_token_that_noise_turned_explains_the_rank_that_followed(between: Between) -> None:
    golden, observed = order_flip(0.7, 0.9, rms=0.01)
    # Position 3 would take 7 in the observed run, which the golden preferred 5 to by 0.01.
    golden["commits"][0] = commit(3, 5, margin=0.01, runner_up=7)
    observed["rejected"] = [reject(3, -1.4, token=7), reject(8, -2.0)]
    observed["commits"][0] = commit(4, confidence=-1.2)
    assert between(golden, observed, budget=Budget(1.0, 1.0, 1.0, {})).divergence_class == "NEAR_TIE"
    golden["commits"][0] = commit(3, 5, margin=1.0, runner_up=7)
    assert between(golden, observed, budget=Budget(1.0, 1.0, 1.0, {})).divergence_class == "LOGIC"


def test_without_evidence_a_decision_cannot_be_told(handmade: Handmade, held: Held) -> None:
    golden, observed = (handmade(step) for step in token_flip(rms=0.01))
    bare = dataclasses.replace(golden, evidence=None)
    for one, other, who in ((bare, observed, "golden"), (observed, bare, "observed run")):
        found = classify(held(one), held(other))
        assert found.divergence_class is None
        assert (found.step, found.position) == (0, 3)
        assert f"Why the decisions were made: the {who} came without evidence." in found.cannot_tell
        assert found.epsilon is None


def test_without_anything_to_compare_noise_cannot_be_told(between: Between) -> None:
    golden, observed = token_flip(math.nan, math.nan, sketched=0)
    golden["commits"][1], observed["commits"][1] = commit(4, confidence=math.nan), commit(4, confidence=math.nan)
    golden["commits"][1] = commit(4, 5, margin=math.nan, confidence=math.nan)
    found = between(golden, observed)
    assert found.divergence_class is None
    assert "How far the runs are apart: their evidence has no value in common." in found.cannot_tell


def test_without_a_budget_noise_cannot_be_told(between: Between) -> None:
    for dtype in ("int8", None):
        found = between(*token_flip(rms=0.01), budget=None, dtype=dtype)
        assert found.divergence_class is None
        assert any("the golden has no budget, and there is no default" in line for line in found.cannot_tell)
        assert found.tau is None
        assert found.tau_source is None
    found = between(*token_flip(rms=0.01), budget=None, dtype="bfloat16")
    assert found.divergence_class == "NEAR_TIE"
    assert found.tau == DEFAULTS["bfloat16"].scores
    assert found.tau_source == "default for bfloat16"


# LOGIC that needs no measure.


def test_a_token_that_is_not_the_best_is_logic_whatever_the_noise(between: Between) -> None:
    for side in (0, 1):
        steps = token_flip(0.01, 0.01, rms=5.0)
        steps[side]["commits"][0] = commit(3, 5 + 2 * side, margin=3.0, runner_up=8)
        steps[side]["top"] = 6
        found = between(*steps)
        assert found.divergence_class == "LOGIC"
        who = "observed run" if side else "golden"
        assert f"the {who} commits token {5 + 2 * side} at position 3 although token 6 has the highest" in found.reason


def test_a_rejected_position_of_higher_confidence_is_logic_whatever_the_noise(between: Between) -> None:
    for side in (0, 1):
        steps = order_flip(0.01, 0.01, rms=5.0)
        steps[side]["rejected"][0] = reject(4 - side, -0.4)
        found = between(*steps)
        assert found.divergence_class == "LOGIC"
        assert f"commits position {3 + side} and not {4 - side}, whose confidence is higher" in found.reason


def test_a_contradiction_within_rounding_is_none(between: Between) -> None:
    golden, observed = order_flip(0.01, 0.01, rms=0.01)
    golden["rejected"][0] = reject(4, float(np.nextafter(np.float32(-0.5), np.float32(0))))
    assert between(golden, observed).divergence_class == "NEAR_TIE"


def test_more_commits_than_candidates_are_logic(between: Between) -> None:
    golden, observed = token_flip(0.01, 0.01, rms=0.01, candidates=1)
    found = between(golden, observed)
    assert found.divergence_class == "LOGIC"
    assert "commits 2 positions although only 1 could have been" in found.reason


def test_another_number_of_candidates_is_logic_even_with_noise(between: Between) -> None:
    golden, observed = token_flip(rms=0.01, candidates=3)
    observed["rejected"] = [reject(5, -3.0)]
    found = between(golden, observed)
    assert found.divergence_class == "LOGIC"
    assert "among 2 candidates and the observed run among 3" in found.reason


def test_another_number_of_candidates_is_logic_with_a_model_some_of_whose_logits_are_never_finite(
    between: Between,
) -> None:
    golden = {"commits": [commit(3)], "rejected": [reject(4, -0.9)], "non_finite": 6}
    observed = {"commits": [commit(5, confidence=-0.1)], "candidates": 3, "non_finite": 9, "logits": 2}
    observed["rejected"] = [reject(3, -0.5), reject(4, -0.9)]
    found = between(golden, observed)
    assert (found.divergence_class, "chose among 2 candidates" in found.reason) == ("LOGIC", True)
    same = {"commits": [commit(3)], "rejected": [reject(4, -0.9), reject(5, -1.0)], "non_finite": 9, "logits": 2}
    assert between(golden, same).divergence_class == "LOGIC"
    assert between(golden, {**same, "non_finite": 8}).divergence_class == "NON_FINITE"


def test_another_number_of_commits_is_logic_where_the_sampler_fixes_it(between: Between) -> None:
    golden, observed = order_flip(rms=0.01)
    observed["commits"].append(commit(3, confidence=-0.5))
    observed["rejected"] = [reject(8, -2.0)]
    assert between(golden, observed).divergence_class == "LOGIC"
    found = between(golden, observed, sampler=SamplerIdentity("threshold", 1, {}))
    assert found.divergence_class is None
    assert any("how many positions are committed" in line for line in found.cannot_tell)
    observed["logits"] = 1
    assert between(golden, observed, sampler=SamplerIdentity("threshold", 1, {})).divergence_class == "LOGIC"


def test_another_number_of_commits_needs_no_evidence_to_be_logic(handmade: Handmade, held: Held) -> None:
    golden, observed = order_flip(rms=0.01)
    observed["commits"].append(commit(3, confidence=-0.5))
    observed["rejected"] = []
    one, other = (dataclasses.replace(handmade(step), evidence=None) for step in (golden, observed))
    assert classify(held(one), held(other)).divergence_class == "LOGIC"
    assert classify(held(one, sampler=None), held(other, sampler=None)).divergence_class is None


@pytest.mark.parametrize("unnamed", ["golden", "observed"])
def test_another_number_of_commits_cannot_be_told_where_a_sampler_is_not_named(
    handmade: Handmade, held: Held, unnamed: str
) -> None:
    sides = {"golden": {"commits": [commit(3), commit(4)]}, "observed": {"commits": [commit(3)]}}
    runs = {side: held(handmade(step)) for side, step in sides.items()}
    runs[unnamed] = dataclasses.replace(
        runs[unnamed],
        sampler=None,
        sequences=(dataclasses.replace(runs[unnamed].sequences[0], evidence=None),),
    )
    found = classify(runs["golden"], runs["observed"])
    assert found.divergence_class is None
    assert any("sampler and its arguments" in sentence for sentence in found.cannot_tell)


def test_other_decisions_from_equal_logits_are_logic(between: Between) -> None:
    found = between(*order_flip(logits=1))
    assert found.divergence_class == "LOGIC"
    assert "the logits are equal in every bit" in found.reason
    assert between(*token_flip(logits=1)).divergence_class == "LOGIC"


def test_a_confidence_of_zero_in_one_run_alone_is_logic(between: Between) -> None:
    def steps(there: float) -> tuple[Step, Step]:
        golden, observed = order_flip(0.01, 0.01, rms=0.01)
        golden["rejected"][1], observed["rejected"][1] = reject(8, -math.inf), reject(8, there)
        return golden, observed

    found = between(*steps(-2.0))
    assert found.divergence_class == "LOGIC"
    assert "is 0 in one run only" in found.reason
    # So small that a narrow dtype rounds it to 0.
    assert between(*steps(-17.0)).divergence_class == "NEAR_TIE"
    assert between(*steps(-math.inf)).divergence_class == "NEAR_TIE"


# TIE_BREAK and RNG.


def tied(**other: Any) -> tuple[Step, Step]:
    return order_flip(0.0, 0.0, **other)


def test_a_tie_broken_otherwise_from_equal_logits_is_a_tie_break(between: Between) -> None:
    golden, observed = tied(logits=1)
    assert between(golden, observed).divergence_class == "LOGIC"  # equal when rounded, but no tie was counted
    golden["ties"] = 1
    found = between(golden, observed)
    assert found.divergence_class == "TIE_BREAK"
    assert found.epsilon == 0.0


def test_a_tie_does_not_excuse_what_it_did_not_decide(between: Between) -> None:
    golden, observed = order_flip(0.3, 0.3, logits=1, ties=1)
    assert between(golden, observed).divergence_class == "LOGIC"
    golden, observed = tied(logits=1, ties=1)
    golden["commits"].append(commit(9, 5, margin=1.0, runner_up=7))
    observed["commits"].append(commit(9, 7, margin=1.0, runner_up=5))
    assert between(golden, observed).divergence_class == "LOGIC"


def test_equal_scores_from_equal_logits_are_a_tie_break(between: Between) -> None:
    assert between(*token_flip(0.0, 0.0, logits=1)).divergence_class == "TIE_BREAK"


def test_a_tie_in_either_run_is_a_tie_break_although_logits_differ(between: Between) -> None:
    assert between(*tied(rms=0.01)).divergence_class == "TIE_BREAK"
    assert between(*token_flip(0.0, 0.0, rms=0.01)).divergence_class == "TIE_BREAK"


def test_a_tie_that_noise_broke_is_a_near_tie(between: Between) -> None:
    found = between(*order_flip(0.0, 0.01, rms=0.01))
    assert (found.divergence_class, found.kind) == ("NEAR_TIE", ORDER)


def test_a_tie_does_not_hide_a_numeric_regression(between: Between) -> None:
    assert between(*tied(rms=0.05)).divergence_class == "NUMERIC"


def test_other_random_numbers_are_rng(between: Between) -> None:
    for logits in (1, 2):
        found = between(*token_flip(0.3, 0.3, noise=5, logits=logits))
        assert found.divergence_class == "RNG"
        assert "random numbers of step 0 differ" in found.reason


def test_other_random_numbers_of_an_earlier_step_are_not_the_cause(between: Between) -> None:
    golden, observed = token_flip(rms=0.01)
    before = {"commits": [commit(0)]}
    found = between([before, golden], [dict(before, noise=5), observed])
    assert (found.divergence_class, found.step) == ("NEAR_TIE", 1)


def test_a_tie_precedes_other_random_numbers(between: Between) -> None:
    golden, observed = tied(logits=1, noise=5, ties=1)
    assert between(golden, observed).divergence_class == "TIE_BREAK"


def test_a_contradiction_precedes_a_tie_and_other_random_numbers(between: Between) -> None:
    golden, observed = tied(logits=1, noise=5, ties=1)
    observed["rejected"][1] = reject(8, -0.6)
    observed["commits"][0] = commit(4, confidence=-0.7)
    observed["rejected"] = [reject(3, -0.5), reject(8, -0.6)]
    assert between(golden, observed).divergence_class == "LOGIC"


def test_scores_made_with_other_random_numbers_are_no_measure_of_noise(between: Between) -> None:
    found = between(*token_flip(0.3, 9.0, noise=5))
    assert {one.quantity for one in found.noise} == {"logits"}


# NUMERIC.


def test_each_quantity_above_its_budget_is_numeric(between: Between) -> None:
    found = between(*token_flip(0.01, 0.01, rms=0.021))
    assert (found.divergence_class, found.step, found.position) == ("NUMERIC", 0, 3)
    assert found.decided_by is not None
    assert (found.decided_by.quantity, found.tau) == ("logits", 0.02)
    assert found.epsilon == pytest.approx(0.021, rel=1e-3)
    golden, observed = token_flip(0.01, 0.01)
    observed["commits"][1] = commit(4, 6, margin=2.21)
    found = between(golden, observed)
    assert (found.divergence_class, found.decided_by and found.decided_by.quantity) == ("NUMERIC", "scores")
    golden, observed = order_flip(0.01, 0.01, rms=0.01)
    observed["rejected"][1] = reject(8, -2.11)
    found = between(golden, observed)
    assert (found.divergence_class, found.decided_by and found.decided_by.quantity) == ("NUMERIC", "confidences")
    assert "log-confidences differ by up to 0.11, at step 0; the budget is 0.1" in found.reason


def test_confidences_that_differ_by_more_than_the_logits_can_move_them_are_logic(between: Between) -> None:
    # 10,000 logits with a root mean square of 0.00001 are apart by 0.001 in all.
    golden, observed = order_flip(0.01, 0.01, rms=0.00001)
    observed["rejected"][1] = reject(8, -2.11)
    found = between(golden, observed)
    assert (found.divergence_class, found.decided_by and found.decided_by.quantity) == ("LOGIC", "confidences")
    assert "differ by up to 0.11 at step 0, where the budget is 0.1" in found.reason
    assert "which can move one by 0.0021 at most" in found.reason
    # What another sampler's confidences are made of is not known.
    assert between(golden, observed, sampler=None).divergence_class == "NUMERIC"
    unsketched = (dict(step, sketched=0) for step in (golden, observed))
    assert between(*unsketched).divergence_class == "NUMERIC"


def test_the_flip_itself_is_held_against_the_budget(between: Between) -> None:
    assert between(*token_flip(0.11, 0.11, rms=0.02)).divergence_class == "NUMERIC"
    assert between(*order_flip(0.11, 0.01, rms=0.02)).divergence_class == "NUMERIC"


def test_what_exceeds_the_budget_before_the_flip_is_numeric(between: Between) -> None:
    golden, observed = token_flip(rms=0.01)
    before = {"commits": [commit(0)]}
    found = between([before, golden], [dict(before, logits=2, rms=0.5), observed])
    assert (found.divergence_class, found.step, found.position) == ("NUMERIC", 1, 3)
    assert "at step 0" in found.reason


def test_later_steps_say_nothing(between: Between) -> None:
    golden, observed = token_flip(rms=0.01)
    after = {"commits": [commit(0)]}
    odd = {"commits": [commit(0)], "logits": 9, "rms": 99.0, "noise": 4, "non_finite": 7}
    assert between([golden, after], [observed, odd]).divergence_class == "NEAR_TIE"


def test_a_random_ranking_is_not_turned_by_noise_of_the_logits(between: Between) -> None:
    sampler = SamplerIdentity("llada", 1, {"remasking": "random"})
    golden, observed = order_flip(0.01, 0.0, rms=0.01, noise=3)
    golden["noise"] = 3
    assert between(golden, observed).divergence_class == "NEAR_TIE"
    found = between(golden, observed, sampler=sampler)
    assert found.divergence_class is None  # one witness alone
    more = [commit(p, confidence=-0.1) for p in (0, 1, 2, 5, 6, 7, 9, 10, 11)]
    before = {"commits": more, "noise": 3}
    found = between([before, before, golden], [before, before, observed], sampler=sampler)
    assert found.divergence_class == "LOGIC"


def test_guidance_amplifies_noise(between: Between) -> None:
    budget = Budget(1.0, 1.0, 1.0, {})
    assert between(*token_flip(0.2, 0.01, rms=0.01), budget=budget).divergence_class == "LOGIC"
    guided = SamplerIdentity("llada", 1, {"cfg_scale": 1.5})
    assert between(*token_flip(0.2, 0.01, rms=0.01), budget=budget, sampler=guided).divergence_class == "NEAR_TIE"
