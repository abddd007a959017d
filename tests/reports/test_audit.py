"""The lines that say what a loop drew and where its selections were tied."""

from __future__ import annotations

from dataclasses import replace

from difftrace.core.audit import Audit, Draw, Selection
from difftrace.reports.audit import audit_lines
from difftrace.reports.columns import LINE

TOPK = Selection(12, "topk", 1, 64, 8, 37, False, "bfloat16", "cuda", "generate.py:83 in choose", False)
DRAW = Draw(0, "rand_like", (1, 64, 100), "float64", "cuda", "global", "generate.py:12 in add_noise", False)


def test_a_tied_step_is_told_in_plain_words() -> None:
    first, *advice = audit_lines(Audit(selections=(TOPK,)))
    assert first.startswith("step 12: 37 positions tied at the selection boundary (topk of 8 of 64, bfloat16,")
    assert "stable=True" in " ".join(advice)


def test_rows_that_are_selected_one_by_one_are_told_together() -> None:
    rows = tuple(replace(TOPK, tied=tied) for tied in (1, 0, 4))
    assert audit_lines(Audit(selections=rows))[0].startswith("step 12: 5 positions tied")


def test_a_single_position_is_no_positions() -> None:
    assert audit_lines(Audit(selections=(replace(TOPK, tied=1),)))[0].startswith("step 12: 1 position tied")


def test_selections_of_the_vocabulary_are_of_tokens_and_those_of_the_model_of_neither() -> None:
    tokens, inside = replace(TOPK, size=100), replace(TOPK, in_model=True)
    assert "37 tokens tied" in audit_lines(Audit(selections=(tokens,)), vocabulary=100)[0]
    lines = " ".join(audit_lines(Audit(selections=(inside,))))
    assert "37 elements tied" in lines
    assert "inside the model" in lines


def test_many_tied_steps_stay_short() -> None:
    steps = tuple(replace(TOPK, step=step, tied=step) for step in range(1, 1000))
    lines = audit_lines(Audit(selections=steps))
    assert len(lines) < 30
    assert f"and {sum(range(13, 1000))} more, up to step 999" in lines


def test_ties_that_torch_settles_are_counted_and_no_reason_to_act() -> None:
    lines = audit_lines(Audit(selections=(replace(TOPK, operation="argmax", settled=True),)))
    assert lines == ["ties that argmax settles by taking the first: 37, step 12"]


def test_equal_draws_are_told_once_with_their_steps() -> None:
    draws = tuple(replace(DRAW, step=step) for step in (0, 1, 2, 5))
    text = " ".join(line.strip() for line in audit_lines(Audit(draws=draws)))
    assert text == (
        "steps 0-2, 5: rand_like drew float64 [1, 64, 100] on cuda from torch's global generator, 4 times, "
        "generate.py:12 in add_noise"
    )


def test_draws_before_the_first_step_and_of_callers_generators_say_so() -> None:
    draws = (replace(DRAW, step=-1, generator="given"), replace(DRAW, step=3, generator="given"))
    text = " ".join(line.strip() for line in audit_lines(Audit(draws=draws)))
    assert text.startswith("before the first step and step 3: rand_like")
    assert "a generator that the caller gave" in text


def test_generators_of_the_process_are_named() -> None:
    assert audit_lines(Audit(host=("numpy.random",))) == ["numbers were drawn from numpy.random, too"]


def test_many_kinds_of_draws_stay_short() -> None:
    draws = tuple(replace(DRAW, shape=(size,)) for size in range(100))
    lines = audit_lines(Audit(draws=draws))
    assert "and 88 more kinds of draws" in lines
    assert len(lines) <= 30


def test_nothing_found_is_said_too() -> None:
    untied = replace(TOPK, tied=0)
    assert audit_lines(Audit(selections=(untied,))) == ["nothing was drawn at random, and no selection was tied"]


def test_lines_are_printable_and_of_bounded_width() -> None:
    lines = audit_lines(Audit(draws=(replace(DRAW, place="\x1b[31m" + "x" * 300),)))
    assert all(line.isprintable() and len(line) <= LINE for line in lines)
