from __future__ import annotations

import dataclasses

import pytest

from difftrace.core.classes import CLASSES, DivergenceClass, Finding
from difftrace.core.classification import Classification, invalid
from difftrace.core.noise import Measured
from difftrace.core.outcome import Outcome
from difftrace.core.policies import POLICIES, Policy, divergence_classes, judge

SAME = Outcome("IDENTICAL", 0, 0, True)
ORDER_ONLY = Outcome("ORDER_ONLY", 0, 2, True)
SAME_TEXT = Outcome("TEXT", 2, 2, True)
TEXT = Outcome("TEXT", 2, 2, False)
TOKENS = Outcome("TEXT", 2, 2, None)

# Where runs of the class usually end.
OUTCOMES: dict[DivergenceClass | None, Outcome] = {"IDENTICAL": SAME, "DRIFT": SAME, "WEIGHTS": SAME}


def found(name: DivergenceClass | None, outcome: Outcome | None = None, *noise: Measured) -> Classification:
    return dataclasses.replace(
        invalid("x"), divergence_class=name, outcome=outcome or OUTCOMES.get(name, TEXT), noise=noise
    )


PASSES: dict[Policy, set[DivergenceClass]] = {
    "exact": {"IDENTICAL", "DRIFT"},
    "near-tie": {"IDENTICAL", "DRIFT", "NEAR_TIE", "TIE_BREAK"},
    "tokens": {"IDENTICAL", "DRIFT", "WEIGHTS"},
    "text": {"IDENTICAL", "DRIFT", "WEIGHTS"},
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", [None, *CLASSES])
def test_each_policy_passes_its_classes(policy: Policy, name: DivergenceClass | None) -> None:
    judgement = judge(found(name), policy)
    assert judgement.passes == (name in PASSES[policy])
    assert judgement.warns == (judgement.passes and name != "IDENTICAL")
    assert judgement.reason


@pytest.mark.parametrize(
    ("policy", "outcome", "passes"),
    [
        ("tokens", ORDER_ONLY, True),
        ("tokens", SAME_TEXT, False),
        ("tokens", TEXT, False),
        ("text", ORDER_ONLY, True),
        ("text", SAME_TEXT, True),
        ("text", TEXT, False),
        ("text", TOKENS, False),
        ("text", Outcome("ORDER_ONLY", 0, 2, None), True),
        ("exact", ORDER_ONLY, False),
    ],
)
def test_tokens_and_text_look_at_the_outcome_alone(policy: Policy, outcome: Outcome, passes: bool) -> None:
    for name in (None, "LOGIC", "NUMERIC", "NEAR_TIE", "INPUT"):
        assert judge(found(name, outcome), policy).passes == passes  # type: ignore[arg-type]


def test_a_close_decision_passes_within_the_budget_alone() -> None:
    inside, outside = Measured("scores", 0.1, 0.2, 3, 0), Measured("logits", 0.3, 0.2, 3, 0)
    for name in ("NEAR_TIE", "TIE_BREAK"):
        assert judge(found(name, TEXT, inside), "near-tie").passes  # type: ignore[arg-type]
        judgement = judge(found(name, TEXT, inside, outside), "near-tie")  # type: ignore[arg-type]
        assert not judgement.passes
        assert "exceeds the budget" in judgement.reason


@pytest.mark.parametrize("policy", POLICIES)
def test_an_unreadable_baseline_passes_no_policy(policy: Policy) -> None:
    judgement = judge(invalid("x"), policy)
    assert (judgement.passes, judgement.reason) == (False, "nothing could be compared")


def test_classes_can_be_made_to_fail() -> None:
    judgement = judge(found("DRIFT"), "exact", fail_on=["drift"])
    assert (judgement.passes, judgement.warns, judgement.reason) == (False, False, "DRIFT was asked to fail")
    assert not judge(found("NEAR_TIE", ORDER_ONLY), "tokens", fail_on=["near-tie"]).passes
    assert judge(found("DRIFT"), "exact", fail_on=["WEIGHTS"]).passes


def test_classes_can_be_allowed() -> None:
    judgement = judge(found("LENGTH"), "exact", allow=["LENGTH", "rng"])
    assert (judgement.passes, judgement.warns, judgement.reason) == (True, True, "LENGTH was allowed")
    assert not judge(found("LOGIC"), "exact", allow=["LENGTH"]).passes
    assert not judge(found(None), "exact", allow=["LENGTH"]).passes


def test_names_are_read_in_any_case_with_either_dash() -> None:
    assert divergence_classes(["near-tie", "Near_Tie", " run-to-run "]) == {"NEAR_TIE", "RUN_TO_RUN"}


@pytest.mark.parametrize("name", ["LOGICAL", "", "IDENTICAL", "NEAR TIE", "\x1b[31m"])
def test_an_unknown_class_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match="use some of INVALID, INPUT, CONFIG, WEIGHTS") as caught:
        judge(found("LOGIC"), "exact", fail_on=[name])
    assert repr(name) in str(caught.value)
    assert "IDENTICAL" not in str(caught.value).partition("use some of")[2]


def test_contradictory_wishes_are_refused() -> None:
    with pytest.raises(ValueError, match="DRIFT, LOGIC cannot both fail and be allowed"):
        judge(found("RNG"), "exact", fail_on=["LOGIC", "DRIFT"], allow=["DRIFT", "RNG", "LOGIC"])
    with pytest.raises(ValueError, match="INVALID cannot be allowed"):
        judge(found("IDENTICAL"), "exact", allow=["INVALID"])
    with pytest.raises(ValueError, match="there is no policy 'strict': use one of exact, near-tie, tokens, text"):
        judge(found("IDENTICAL"), "strict")  # type: ignore[arg-type]


def test_no_sequence_passes_because_another_one_is_reported() -> None:
    noise = Measured("scores", 0.2, 0.1, 1, 0)
    cases: list[tuple[Finding, Policy, dict[str, list[str]], str | None]] = [
        (Finding("RNG", "", sequence=1), "exact", {"allow": ["NUMERIC"]}, "RNG: the policy exact"),
        (Finding("RNG", "", sequence=1), "exact", {"allow": ["NUMERIC", "rng"]}, None),
        (Finding("NEAR_TIE", "", sequence=1), "near-tie", {"allow": ["NUMERIC"]}, None),
        (Finding("NEAR_TIE", "", sequence=1, noise=(noise,)), "near-tie", {"allow": ["NUMERIC"]}, "NEAR_TIE, but"),
        (Finding("DRIFT", "", sequence=1), "near-tie", {"allow": ["NUMERIC"], "fail_on": ["DRIFT"]}, "DRIFT was asked"),
        (Finding(None, "", sequence=1), "exact", {"allow": ["NUMERIC"]}, "what differs cannot be told"),
    ]
    for other, policy, exceptions, reason in cases:
        reported = dataclasses.replace(found("NUMERIC"), others=(other, Finding("DRIFT", "", sequence=2)))
        judgement = judge(reported, policy, **exceptions)
        assert judgement.passes == (reason is None)
        assert judgement.reason.startswith("NUMERIC was allowed" if reason is None else f"sequence 1: {reason}")
