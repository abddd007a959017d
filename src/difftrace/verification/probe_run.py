"""One short generation seen from inside: what each row decided, and the logits it decided on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from difftrace.core.errors import ProbeError
from difftrace.core.trajectory import Trajectory
from difftrace.determinism.enforcement import enforce
from difftrace.models import LoadedModel
from difftrace.sampling import SamplerArguments, generate
from difftrace.sampling.padding import left_pad

# One block of the published length, so that every step chooses among many positions, and several commits a step, so
# that some are close calls. Not larger, because every logit is kept: 0.2 GB a row at LLaDA's vocabulary in bf16.
ARGUMENTS: Final = SamplerArguments(steps=16, gen_length=32, block_length=32, seed=0)

Prompts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Conditions:
    """What may be varied around a run: CPU threads, and the attention backend by the name `enforce` knows it by."""

    threads: int
    attention: str = "math"


@dataclass(frozen=True, eq=False)
class RowRun:
    """One row of a batch, without its padding.

    Attributes:
        trajectory: its decisions; positions count from the start of its prompt.
        logits: what each step saw, [steps, L, vocabulary], on the CPU in the dtype they came in.
    """

    trajectory: Trajectory
    logits: Tensor


def run_rows(loaded: LoadedModel, prompts: Prompts, conditions: Conditions, *, batch: int = 1) -> tuple[RowRun, ...]:
    """Denoise `prompts` in batches of `batch` rows under enforced determinism; return their rows in order.

    Every batch starts from the same seed. Prompts of unequal length within a batch are left-padded.
    """
    rows: list[RowRun] = []
    for start in range(0, len(prompts), batch):
        rows += _run_batch(loaded, prompts[start : start + batch], conditions)
    return tuple(rows)


def _run_batch(loaded: LoadedModel, prompts: Prompts, conditions: Conditions) -> list[RowRun]:
    ids, mask = left_pad(prompts, loaded.config.pad_token_id)
    seen: list[Tensor] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        seen.append(output.logits.detach().clone())

    assert ARGUMENTS.seed is not None
    hook = loaded.model.register_forward_hook(keep)
    try:
        with enforce(ARGUMENTS.seed, device=loaded.device, threads=conditions.threads, attention=conditions.attention):
            generation = generate(loaded.model, ids, attention_mask=mask, **ARGUMENTS.as_dict())
    finally:
        hook.remove()
    if len(seen) != ARGUMENTS.steps:
        raise ProbeError(f"the model was called {len(seen)} times in {ARGUMENTS.steps} steps")
    return [
        RowRun(_unpadded(trajectory), torch.stack([logits[row, trajectory.padding :] for logits in seen]).cpu())
        for row, trajectory in enumerate(generation.trajectories)
    ]


def _unpadded(trajectory: Trajectory) -> Trajectory:
    """Return the same decisions on the row's own canvas, so that they compare with a run that needed no padding."""
    return Trajectory(
        prompt=trajectory.prompt,
        initial=trajectory.initial[trajectory.padding :],
        steps=trajectory.steps,
        positions=trajectory.positions - trajectory.padding,
        tokens=trajectory.tokens,
        num_steps=trajectory.num_steps,
    )
