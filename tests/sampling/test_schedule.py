"""The schedule is the run's: its numbers, quotas and windows."""

from __future__ import annotations

import torch

from difftrace.sampling import SamplerArguments
from difftrace.sampling.schedule import PlannedStep, candidates, schedule


def test_blocks_follow_each_other_and_early_steps_take_the_remainder() -> None:
    planned = schedule(SamplerArguments(steps=6, gen_length=10, block_length=5), 3)
    assert planned == tuple(
        PlannedStep(number, quota, end)
        for number, (quota, end) in enumerate([(2, 8), (2, 8), (1, 8), (2, 13), (2, 13), (1, 13)])
    )


def test_more_steps_than_positions_leave_steps_that_commit_nothing() -> None:
    planned = schedule(SamplerArguments(steps=5, gen_length=3, block_length=3), 0)
    assert [step.quota for step in planned] == [1, 1, 1, 0, 0]


def test_candidates_are_the_masks_up_to_the_end_of_the_window() -> None:
    canvas = torch.tensor([[9, 1, 9, 9, 9], [9, 9, 2, 9, 9]])
    found = candidates(canvas, 9, PlannedStep(0, 1, 4))
    assert found.tolist() == [[True, False, True, True, False], [True, True, False, True, False]]
    assert canvas.tolist() == [[9, 1, 9, 9, 9], [9, 9, 2, 9, 9]]
