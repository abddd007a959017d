from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from difftrace.core.outcome import Outcome, outcome_of
from difftrace.core.recording import Baseline, SequenceRecord
from difftrace.core.trajectory import Trajectory


def run(*events: tuple[int, int, int], length: int = 4) -> Trajectory:
    steps, positions, tokens = zip(*events, strict=True)
    return Trajectory([], [9] * length, steps, positions, tokens, 4)


GOLDEN = run((0, 0, 1), (0, 1, 2), (1, 2, 3), (2, 3, 4))


def outcome(observed: Trajectory, *texts: str | None, golden: Trajectory = GOLDEN) -> Outcome:
    one, other = texts or (None, None)
    sides = (SequenceRecord(golden, one, None), SequenceRecord(observed, other, None))
    return outcome_of(*(Baseline(None, None, None, {}, {}, (side,)) for side in sides))


def test_the_same_events_in_another_order_within_a_step_are_identical() -> None:
    assert outcome(run((0, 1, 2), (0, 0, 1), (2, 3, 4), (1, 2, 3))) == Outcome("IDENTICAL", 0, 0, None)


def test_the_same_tokens_by_other_commits_are_order_only() -> None:
    assert outcome(run((0, 0, 1), (0, 1, 2), (1, 3, 4), (2, 2, 3)), "a", "a") == Outcome("ORDER_ONLY", 0, 2, True)


def test_other_final_tokens_are_counted() -> None:
    assert outcome(run((0, 0, 1), (0, 1, 2), (1, 2, 3), (2, 3, 5)), "a", "b") == Outcome("TEXT", 1, 1, False)
    assert outcome(run((0, 0, 1), (0, 1, 2), (1, 2, 3))) == Outcome("TEXT", 1, 1, None)
    assert outcome(run((0, 0, 1), (0, 1, 2), (1, 2, 3), length=6)) == Outcome("TEXT", 3, 1, None)


def test_other_tokens_may_read_as_the_same_text() -> None:
    assert outcome(run((0, 0, 1), (0, 1, 2), (1, 2, 3), (2, 3, 5)), "a", "a") == Outcome("TEXT", 1, 1, True)


def test_the_same_tokens_read_as_another_text_are_another_text() -> None:
    assert outcome(GOLDEN, "a", "b") == Outcome("TEXT", 0, 0, False)


@pytest.mark.parametrize("turn", [lambda sides: sides, lambda sides: sides[::-1]])
def test_a_sequence_that_only_one_side_has_differs_whole(
    turn: Callable[[list[Baseline]], list[Baseline]],
) -> None:
    one = Baseline(None, None, None, {}, {}, (SequenceRecord(GOLDEN, "a", None),))
    two = dataclasses.replace(one, sequences=one.sequences * 2)
    assert outcome_of(*turn([one, two])) == Outcome("TEXT", 4, 4, False)
