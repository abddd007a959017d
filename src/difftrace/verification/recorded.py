"""A baseline made runnable again: its sampler's arguments, its prompts, and the batch the model saw at a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from difftrace.core.errors import BisectionError, RunError
from difftrace.core.recording import Baseline, SamplerIdentity
from difftrace.core.trajectory import Trajectory
from difftrace.determinism.enforcement import enforce
from difftrace.models import LoadedModel
from difftrace.sampling import SamplerArguments, generate
from difftrace.sampling.arguments import BEHAVIOUR_VERSION, NAME
from difftrace.sampling.decision import double
from difftrace.verification.runner import threads_that_pay


@dataclass(frozen=True, eq=False)
class StepInputs:
    """What the model was called with at a step: ids [B, L] and attention mask [B, L], None where nothing is hidden."""

    input_ids: Tensor
    attention_mask: Tensor | None


@dataclass(frozen=True, eq=False)
class RecordedBatch:
    """What a baseline was recorded with: one batch of B sequences, denoised together.

    Attributes:
        arguments: of the sampler.
        trajectories: what came out, B many.
        prompt_ids: [B, P], left-padded.
        prompt_mask: [B, P], 0 at padding; None where nothing is hidden.
    """

    arguments: SamplerArguments
    trajectories: tuple[Trajectory, ...]
    prompt_ids: Tensor
    prompt_mask: Tensor | None


def recorded_batch(baseline: Baseline) -> RecordedBatch:
    """Return how a baseline was recorded; RunError where it does not say so, or not to this sampler."""
    arguments = _recorded_arguments(baseline.sampler)
    trajectories = tuple(record.trajectory for record in baseline.sequences)
    prompt_length = trajectories[0].length - arguments.gen_length
    if len({t.length for t in trajectories}) != 1 or prompt_length < 0:
        raise RunError("the baseline's sequences are not one batch, so it cannot be run again")
    ids = torch.tensor(np.stack([t.initial[:prompt_length] for t in trajectories]), dtype=torch.long)
    mask = _attention_mask(trajectories)
    return RecordedBatch(arguments, trajectories, ids, None if mask is None else mask[:, :prompt_length])


def run_again(loaded: LoadedModel, baseline: Baseline) -> list[Trajectory]:
    """Denoise the baseline's prompts as it says they were, with `loaded`; return one trajectory for each sequence.

    Raises RunError where the baseline does not say how, SamplerError where the model cannot.
    """
    batch = recorded_batch(baseline)
    arguments = seeded(batch.arguments)
    assert arguments.seed is not None
    with enforce(arguments.seed, device=loaded.device, threads=threads_that_pay(loaded.model)):
        return generate(
            loaded.model, batch.prompt_ids, attention_mask=batch.prompt_mask, **arguments.as_dict()
        ).trajectories


def seeded(arguments: SamplerArguments) -> SamplerArguments:
    """Return arguments that can be run again: with a seed, for form's sake where nothing is drawn.

    Raises RunError where random numbers were drawn that nobody can have again.
    """
    if arguments.seed is not None:
        return arguments
    if arguments.draws:
        raise RunError(
            "the run drew from torch's global generator, whose state at its start is not recorded (there is no seed),"
            " so it cannot be run again"
        )
    return replace(arguments, seed=0)


def inputs_at(loaded: LoadedModel, baseline: Baseline, step: int, sequence: int | None) -> StepInputs:
    """Return the golden canvases before `step`, as the sampler hands them to the model, on its device.

    `sequence` None is the whole batch, as it was recorded. Under guidance the unconditional rows follow, in which
    everything that was there at the start is masked. Raises BisectionError for a step or a sequence that the baseline
    does not have, or tokens that the model does not.
    """
    trajectories = _chosen(baseline, sequence)
    last = min(t.num_steps for t in trajectories) - 1
    if not 0 <= step <= last:
        raise BisectionError(f"there is no step {step}: the baseline's are 0 to {last}")
    canvas = torch.tensor(np.stack([t.canvas(step) for t in trajectories]), dtype=torch.long)
    mask = _attention_mask(trajectories)
    highest, size = int(canvas.max()), loaded.config.embedding_size
    if highest >= size:
        raise BisectionError(f"the canvas holds token {highest}, outside the vocabulary of {size} of {loaded.name}")
    if _is_guided(baseline.sampler):
        mask_id = loaded.config.mask_token_id
        initial = torch.tensor(np.stack([t.initial for t in trajectories]), dtype=torch.long)
        canvas = double(canvas, initial != mask_id, mask_id)
        mask = None if mask is None else torch.cat((mask, mask))
    return StepInputs(canvas.to(loaded.device), None if mask is None else mask.to(loaded.device))


def _recorded_arguments(sampler: SamplerIdentity | None) -> SamplerArguments:
    if sampler is None:
        raise RunError("the baseline does not say which sampler ran, so it cannot be run again")
    if (sampler.name, sampler.version) != (NAME, BEHAVIOUR_VERSION):
        raise RunError(
            f"the baseline was recorded by sampler {sampler.name} version {sampler.version}, here is {NAME} version"
            f" {BEHAVIOUR_VERSION}, so it cannot be run again"
        )
    known = {field.name for field in fields(SamplerArguments)}
    unknown = sorted(set(sampler.arguments) - known)
    if unknown:
        raise RunError(f"the baseline names the sampler argument {unknown[0]!r}, which there is not")
    arguments: dict[str, Any] = dict(sampler.arguments)
    try:
        return SamplerArguments(**arguments)
    except TypeError as error:
        raise RunError(f"the baseline's sampler arguments are not complete ({error})") from None


def _chosen(baseline: Baseline, sequence: int | None) -> list[Trajectory]:
    trajectories = [record.trajectory for record in baseline.sequences]
    if sequence is None:
        if len({t.length for t in trajectories}) != 1:
            raise BisectionError("the baseline's sequences differ in length, so they were no batch; give --sequence")
        return trajectories
    if not 0 <= sequence < len(trajectories):
        raise BisectionError(f"there is no sequence {sequence}: the baseline's are 0 to {len(trajectories) - 1}")
    return [trajectories[sequence]]


def _attention_mask(trajectories: Sequence[Trajectory]) -> Tensor | None:
    """Return the batch's mask [B, L]; None where it hides nothing, which the sampler does not apply either."""
    if all(t.attention_mask is None for t in trajectories):
        return None
    rows = [np.ones(t.length) if t.attention_mask is None else t.attention_mask for t in trajectories]
    return torch.tensor(np.stack(rows), dtype=torch.long)


def _is_guided(sampler: SamplerIdentity | None) -> bool:
    scale = None if sampler is None else sampler.arguments.get("cfg_scale")
    return isinstance(scale, int | float) and scale > 0
