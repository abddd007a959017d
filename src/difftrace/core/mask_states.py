"""Masks that a loop reports, compared with those that follow from its commits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from difftrace.core.errors import EngineError
from difftrace.core.trajectory import Trajectory


def check_masks(trajectory: Trajectory, masks: Sequence[tuple[int, npt.NDArray[np.bool_]]], mask_token: int) -> None:
    """Compare each (step, mask), in the order of steps, with the canvas after that step.

    Masks are [L], or [L - P] without the prompt; a position after the prompt is masked where it holds `mask_token`.

    Raises:
        EngineError: the first mask that says something else, with its step and position.
    """
    prompt = trajectory.prompt.size
    masked = trajectory.initial == mask_token
    still_masked = trajectory.tokens == mask_token
    bounds = trajectory.steps.searchsorted(np.arange(masks[-1][0] + 2 if masks else 0)).tolist()
    reached = 0
    for step, mask in masks:
        for first, last in pairwise(bounds[reached : step + 2]):
            masked[trajectory.positions[first:last]] = still_masked[first:last]
        reached = step + 1
        expected = masked[prompt:]
        given = mask[mask.size - expected.size :]
        if mask.size > expected.size and mask[:prompt].any():
            position = int(np.flatnonzero(mask[:prompt])[0])
            raise EngineError(f"mask_state of step {step} says that position {position} of the prompt is masked")
        wrong = np.flatnonzero(given != expected)
        if wrong.size:
            position = prompt + int(wrong[0])
            raise EngineError(_contradiction(trajectory, step, position, masked=bool(given[wrong[0]])))


def _contradiction(trajectory: Trajectory, step: int, position: int, masked: bool) -> str:
    commits = trajectory.steps[(trajectory.positions == position) & (trajectory.steps <= step)]
    if not commits.size:
        return (
            f"mask_state of step {step} says that position {position} is no longer masked, but no captured step"
            " committed it; capture every step"
        )
    if masked:
        return (
            f"mask_state of step {step} says that position {position} is masked, but step {int(commits[-1])} committed"
            " it; capture a position that is masked again as one that takes the mask's token, and give its id as"
            " mask_token_id"
        )
    return (
        f"mask_state of step {step} says that position {position} is not masked, but step {int(commits[-1])} committed"
        " the mask's token there"
    )
