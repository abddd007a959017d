"""Divergent steps are listed whole where they are few, and never fill the screen."""

from __future__ import annotations

import pytest

from difftrace.core.comparison import Divergence
from difftrace.core.forced import ForcedVerdict, ScoredStep
from difftrace.core.step_sample import choose_steps
from difftrace.reports.scored import divergent_steps_lines


def verdict(divergent: list[int], total: int, batch: int, sampled: int | None = None) -> ForcedVerdict:
    def scored(step: int) -> ScoredStep:
        wrong = step in divergent
        found = Divergence("decision", 0, step, 2, 3, 4, step, step) if wrong else None
        return ScoredStep(step, 0, wrong or batch == 1, 0.0, 0.0, found)

    sample = None if sampled is None else choose_steps(total, sampled, 0)
    steps = range(total) if sample is None else sample.steps
    rescored = 0 if batch == 1 else len(divergent)
    return ForcedVerdict("sha256:", total, tuple(map(scored, steps)), (), (0,), batch, rescored, sample)


@pytest.mark.parametrize(
    ("divergent", "batch", "expected"),
    [
        ([5, 9, 12], 1, "3 of 64 steps diverge: 5, 9, 12; each scored as recorded"),
        (
            [5, 6, 7, 9, 10],
            11,
            "5 of 64 steps diverge: 5-7, 9-10; scored in batches of 11, those that differed again as recorded",
        ),
        ([0], 1, "1 of 64 steps diverges: 0; each scored as recorded"),
        ([], 1, "none of 64 steps diverges; each scored as recorded"),
    ],
)
def test_few_steps_are_one_line(divergent: list[int], batch: int, expected: str):
    assert divergent_steps_lines(verdict(divergent, 64, batch)) == [expected]


def test_a_sample_says_what_it_was_chosen_from():
    steps = choose_steps(64, 8, 0).steps
    [line] = divergent_steps_lines(verdict([steps[0]], 64, 1, sampled=8))
    assert line == (f"1 of the 8 steps chosen at random of 64 (seed 0) diverges: {steps[0]}; each scored as recorded")


def test_many_steps_are_three_lines_at_most_and_counted():
    lines = divergent_steps_lines(verdict(list(range(1000, 4096, 2)), 4096, 128))
    assert len(lines) <= 3
    assert max(map(len, lines)) <= 100
    told = " ".join(line.strip() for line in lines)
    assert told.startswith("1548 of 4096 steps diverge: 1000, ")
    assert "1036, 1038, … (1548 in all); scored" in told
