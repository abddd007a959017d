"""Steps are chosen evenly and for ever alike, and the share of faults they show is what counting says."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from difftrace.core.step_sample import StepSample, caught_from, choose_steps


@pytest.mark.parametrize("total", [1, 2, 5, 9])
def test_the_share_is_that_of_all_possible_choices(total: int) -> None:
    for count in range(1, total + 1):
        choices = list(combinations(range(total), count))
        for confidence in (50, 80, 95, 100):
            enough = [
                faulty
                for faulty in range(total + 1)
                if sum(bool(set(chosen) & set(range(faulty))) for chosen in choices) * 100 >= confidence * len(choices)
            ]
            assert caught_from(total, count, confidence) == min(enough)


def test_the_published_setting() -> None:
    sample = choose_steps(64, 8, 0)
    assert sample.caught_from == 19
    assert sample.share == 19 / 64
    assert sample.single == 0.125
    assert str(sample) == (
        "8 of 64 steps at random (seed 0): a fault that shows in at least 19 of 64 steps is caught with 95 %, one that"
        " shows in a single step with 12.5 %"
    )


def test_a_sample_of_everything_is_no_sample() -> None:
    assert str(choose_steps(8, 8, 3)) == "all 8 steps"


def test_long_runs_are_counted_exactly() -> None:
    # Of so many steps each draw misses with nearly the same probability, 1 - m / 4096.
    assert caught_from(4096, 40) == pytest.approx(4096 * (1 - 0.05 ** (1 / 40)), rel=0.01)
    assert caught_from(4096, 4096) == 1


def test_the_choice_is_the_same_for_ever() -> None:
    assert choose_steps(64, 8, 0) == StepSample(0, (15, 18, 20, 25, 36, 44, 46, 57), 64)
    assert choose_steps(64, 8, 1).steps != choose_steps(64, 8, 0).steps


def test_no_step_is_chosen_twice_and_all_where_there_are_no_more() -> None:
    assert choose_steps(5, 5, 3).steps == choose_steps(5, 9, 3).steps == (0, 1, 2, 3, 4)
    assert len(set(choose_steps(100, 30, 7).steps)) == 30


def test_every_step_is_chosen_about_as_often() -> None:
    counts = Counter(step for seed in range(2000) for step in choose_steps(10, 3, seed).steps)
    # 600 expected, 20 the standard deviation.
    assert sorted(counts) == list(range(10))
    assert all(500 < count < 700 for count in counts.values())
