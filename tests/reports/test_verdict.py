from __future__ import annotations

import dataclasses

import pytest

from difftrace.core.classes import Finding
from difftrace.core.classification import Classification, invalid
from difftrace.core.noise import Measured
from difftrace.core.outcome import Outcome
from difftrace.core.suspects import Suspect
from difftrace.reports.columns import width
from difftrace.reports.verdict import reason_lines, verdict_lines

FOUND = Classification(
    divergence_class="NEAR_TIE",
    reason="At step 2 the golden preferred token 5 to 7 at position 3 by 0.01.",
    sequence=0,
    step=2,
    position=3,
    kind="token",
    noise=(Measured("scores", 0.0123, 0.56, 4, 2), Measured("logits", 0.095, 0.14, 1, 0)),
    decided_by=None,
    tau_source="default for bfloat16",
    cannot_tell=("Whether the observed run repeats itself: it was not run a second time.",),
    outcome=Outcome("TEXT", 1, 2, False),
    suspects=(Suspect("environment.torch", "2.12", "2.13"), Suspect("environment.device", None, "cpu")),
)


def test_the_lines_say_what_was_found_measured_and_not_known() -> None:
    assert verdict_lines(FOUND) == [
        "NEAR_TIE (token): At step 2 the golden preferred token 5 to 7 at position 3 by 0.01.",
        "  measured: scores differ by 0.012 (budget 0.56, 4 values); logits differ by rms 0.095 (budget 0.14,",
        "    1 step)",
        "  budget: default for bfloat16",
        "  outcome: 1 final token and 2 commits differ",
        "  cannot tell: Whether the observed run repeats itself: it was not run a second time.",
        "  suspects: environment.torch 2.12 → 2.13; environment.device nothing → cpu",
    ]


def test_the_suspects_can_be_left_to_another_list() -> None:
    assert [*reason_lines(FOUND), verdict_lines(FOUND)[-1]] == verdict_lines(FOUND)


def test_what_differs_in_other_sequences_is_named_too() -> None:
    others = (Finding("RNG", "", 1, 7), Finding(None, "", 3, 2), *(Finding("DRIFT", "", 4 + n, 0) for n in range(9)))
    lines = reason_lines(dataclasses.replace(FOUND, others=others[:3]))
    assert "  other sequences: 1 RNG at step 7; 3 CANNOT TELL at step 2; 4 DRIFT at step 0" in lines
    assert "DRIFT at step 0; 3 more" in " ".join(reason_lines(dataclasses.replace(FOUND, others=others)))


def test_what_is_not_known_is_left_out_or_said() -> None:
    assert verdict_lines(invalid("golden.json: is not complete JSON")) == ["INVALID: golden.json: is not complete JSON"]
    bare = dataclasses.replace(
        FOUND,
        divergence_class=None,
        kind=None,
        sequence=3,
        noise=(Measured("confidences", 2.0, None, 1, 0),),
        tau_source=None,
        cannot_tell=(),
        suspects=(),
    )
    assert verdict_lines(bare) == [
        "CANNOT TELL, sequence 3: At step 2 the golden preferred token 5 to 7 at position 3 by 0.01.",
        "  measured: confidences differ by 2 (1 value)",
        "  budget: none",
        "  outcome: 1 final token and 2 commits differ",
    ]


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Outcome("IDENTICAL", 0, 0, None), "the same decisions"),
        (Outcome("ORDER_ONLY", 0, 2, True), "the same final tokens in another order (2 commits of it)"),
        (Outcome("TEXT", 0, 0, False), "the same final tokens, read as another text"),
        (Outcome("TEXT", 3, 1, True), "3 final tokens and 1 commit differ, the same text"),
    ],
)
def test_outcomes_are_said_in_words(outcome: Outcome, text: str) -> None:
    assert f"  outcome: {text}" in verdict_lines(dataclasses.replace(FOUND, outcome=outcome))


def test_lines_stay_narrow_and_act_on_no_terminal() -> None:
    hostile = "\x1b[31m::error::" + "漢" * 300
    suspects = tuple(Suspect(f"environment.{hostile}{index}", hostile, [hostile]) for index in range(40))
    lines = verdict_lines(dataclasses.replace(FOUND, reason=hostile, suspects=suspects, cannot_tell=(hostile,) * 2))
    assert len(lines) < 40
    for line in lines:
        assert line.isprintable()
        assert width(line) <= 100
        assert not line.lstrip().startswith("::")
    assert lines[-1].endswith("35 more")
