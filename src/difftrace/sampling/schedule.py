"""What is known of every step before a run: how many positions it commits, and where."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from difftrace.sampling.arguments import SamplerArguments


@dataclass(frozen=True)
class PlannedStep:
    """One step of a run: its number, how many positions it commits, and the canvas position its window ends before."""

    number: int
    quota: int
    end: int


def schedule(arguments: SamplerArguments, prompt_length: int) -> tuple[PlannedStep, ...]:
    """Return every step of a run behind prompts of `prompt_length` positions, padding included: block by block."""
    quotas = arguments.quotas()
    return tuple(
        PlannedStep(block * len(quotas) + index, quota, prompt_length + (block + 1) * arguments.block_length)
        for block in range(arguments.num_blocks)
        for index, quota in enumerate(quotas)
    )


def candidates(canvas: Tensor, mask_id: int, step: PlannedStep) -> Tensor:
    """Return which positions of `canvas` [B, L] the step could commit, bool [B, L]: the masks up to its window's end."""
    masked = canvas == mask_id
    masked[:, step.end :] = False
    return masked
