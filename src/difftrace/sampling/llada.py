"""LLaDA's semi-autoregressive sampler (ML-GSAI/LLaDA, generate.py), with a total order among ties."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from difftrace.core.errors import SamplerError
from difftrace.core.evidence import Evidence
from difftrace.core.logits_reference import RecordedLogits
from difftrace.core.trajectory import Trajectory
from difftrace.sampling.arguments import SamplerArguments
from difftrace.sampling.decision import decide, double, unlikely_ids
from difftrace.sampling.evidence import EvidenceRecorder
from difftrace.sampling.logits import LogitsRecorder
from difftrace.sampling.logits_stream import LogitsStream, LogitsTarget
from difftrace.sampling.noise import noise_for
from difftrace.sampling.schedule import candidates, schedule
from difftrace.sampling.step import Step

Record = Literal["none", "decisions", "evidence", "logits", "tokens", "tokens+masks", "full"]
# What the other names mean. A trajectory holds tokens and masks alike, so to record less than both saves nothing.
_OTHER_NAMES: dict[str, Record] = {"tokens": "decisions", "tokens+masks": "decisions", "full": "logits"}
_RECORDS = ("none", "decisions", "evidence", "logits", *_OTHER_NAMES)

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

# A bar shows on a terminal only, and only for runs that take longer than this many seconds.
_PROGRESS_AFTER = 2.0

# Bytes of steps that wait for their evidence while logits go to a file, which is to bound the memory: on a CPU less
# than usual, so that large steps are reduced at once.
_HOLD_BESIDE_FILE = 8 << 20


class DenoisingModel(Protocol):
    """A model as the sampler needs it: `config` holds the ids, a call returns an object with `logits`."""

    config: Any

    def __call__(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        """Score every position of [B, L]."""
        ...


@dataclass(frozen=True)
class Generation:
    """What a run produced, and what was recorded of it.

    Attributes:
        tokens: the final canvases, [B, P + gen_length].
        trajectories: one for each row; empty where nothing was recorded.
        evidence: one for each row; empty unless evidence was recorded.
        logits: what the model returned for each row, [steps, passes, L, V] on the host and in the model's dtype, where
            L leaves padding out and passes is 1, or 2 under guidance (conditional, then unconditional); empty unless
            logits were recorded.
        logits_file: the file that the logits went to instead, where one was asked for.
    """

    tokens: Tensor
    trajectories: list[Trajectory]
    evidence: list[Evidence] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    logits_file: RecordedLogits | None = None


@dataclass(frozen=True)
class _Commits:
    """One step's decision: `positions` [B, k] and the `tokens` [B, k] they take, still on the device."""

    step: int
    positions: Tensor
    tokens: Tensor


@torch.no_grad()
def generate(
    model: DenoisingModel,
    prompt_ids: Tensor,
    *,
    attention_mask: Tensor | None = None,
    steps: int,
    gen_length: int,
    block_length: int,
    temperature: float = 0.0,
    cfg_scale: float = 0.0,
    remasking: str = "low_confidence",
    logits_eos_inf: bool = False,
    confidence_eos_eot_inf: bool = False,
    tie_break: str = "stable",
    noise: str = "upstream",
    seed: int | None = None,
    record: Record = "evidence",
    logits_to: LogitsTarget | str | os.PathLike[str] | None = None,
) -> Generation:
    """Denoise `gen_length` masks appended to every prompt.

    `prompt_ids` [B, P] may be left-padded (`attention_mask` [B, P], 0 at padding) and may hold masks, which are
    filled too. Arguments are the published sampler's: a step scores the canvas once (one doubled batch under
    guidance, `cfg_scale` > 0), takes a candidate token at every mask (argmax, after Gumbel noise at `temperature` > 0)
    and commits the quota of the step, by softmax probability (`low_confidence`) or at random (`random`).
    `logits_eos_inf` forbids EOS; `confidence_eos_eot_inf` gives EOS and end-of-turn no confidence, so that they are
    committed last. `tie_break="stable"` commits the leftmost of equally confident positions,
    `"upstream"` whatever `torch.topk` picks. `noise="upstream"` draws as published, from a generator of this run's own
    with `seed`, or torch's global one with None; `"portable"` computes the numbers from seed, step, position
    in the unpadded row and vocabulary id, the same on every device and in every batch (so equal prompts of a batch
    stay equal), and needs a seed.

    `record` is how much is kept: `none`; `decisions`, the trajectories; `evidence`, also what each decision was made
    among; `logits`, also everything the model returned, which must fit into the host's memory. It changes no token.
    With `logits_to` the logits go to a file during the run, which takes 128 MiB of the host's memory beside what
    evidence takes, whatever the run's length; the file appears when the run has ended, and does not if it fails.
    `difftrace.core.logits_file` reads it.
    `tokens` and `tokens+masks` are other names of `decisions`, from which the canvas before every step follows, masks
    included; `full` is another name of `logits`.

    The loop never waits for the device, but with `logits_to` for the file where that cannot keep up. Raises
    SamplerError for arguments that contradict each other or the model, and for logits that do not fit; WriteError
    where the file cannot be written.

    Source: ML-GSAI/LLaDA generate.py (b7e6c35). Differences: guidance works without an attention mask, and
    `confidence_eos_eot_inf` means the same at every temperature (upstream its chained assignment leaves EOS in at
    temperature > 0).
    """
    arguments = SamplerArguments(
        steps,
        gen_length,
        block_length,
        temperature,
        cfg_scale,
        remasking,
        logits_eos_inf,
        confidence_eos_eot_inf,
        tie_break,
        noise,
        seed,
    )
    if record not in _RECORDS:
        raise SamplerError(f"record must be one of {', '.join(_RECORDS)}, not {record!r}")
    record = _OTHER_NAMES.get(record, record)
    if logits_to is not None and record != "logits":
        raise SamplerError(f"record={record!r} keeps no logits to go to a file: give record='logits' with logits_to")
    target = logits_to if logits_to is None or isinstance(logits_to, LogitsTarget) else LogitsTarget(Path(logits_to))
    canvas, mask = _begin(model, prompt_ids, attention_mask, arguments)
    prompt_length = prompt_ids.shape[1]
    initial = canvas.clone()
    first = canvas.new_zeros(canvas.shape[0]) if mask is None else mask.argmax(dim=-1)
    hold = _HOLD_BESIDE_FILE if target is not None and canvas.device.type == "cpu" else None
    evidence = EvidenceRecorder(first, hold) if record in ("evidence", "logits") else None
    logits = LogitsRecorder(first, steps) if record == "logits" and target is None else None
    with nullcontext() if target is None else LogitsStream(target, first, steps) as stream:
        recorders = [recorder.add for recorder in (evidence, logits, stream) if recorder is not None]
        commits = _denoise(model, canvas, mask, prompt_length, arguments, recorders)
        return Generation(
            canvas,
            [] if record == "none" else _trajectories(initial, mask, prompt_length, commits, steps),
            [] if evidence is None else evidence.finish(),
            [] if logits is None else logits.finish(),
            # Last, for it is what makes the file appear.
            None if stream is None else stream.finish(),
        )


def undecided(
    model: DenoisingModel, prompt_ids: Tensor, attention_mask: Tensor | None, arguments: SamplerArguments
) -> list[Trajectory]:
    """Return what `generate` starts from: a trajectory for each row, all its steps ahead of it and no decision made.

    Raises SamplerError where `generate` would before its first step.
    """
    canvas, mask = _begin(model, prompt_ids, attention_mask, arguments)
    nothing = canvas.new_empty((canvas.shape[0], 0))
    return _trajectories(canvas, mask, prompt_ids.shape[1], [_Commits(0, nothing, nothing)], arguments.steps)


def _begin(
    model: DenoisingModel, prompt_ids: Tensor, attention_mask: Tensor | None, arguments: SamplerArguments
) -> tuple[Tensor, Tensor | None]:
    """Return the first canvases [B, L] and their mask [B, L], None where it hides nothing."""
    mask_id = _mask_id(model)
    needs_eos = arguments.logits_eos_inf or arguments.confidence_eos_eot_inf
    if needs_eos and getattr(model.config, "eos_token_id", None) is None:
        raise SamplerError("model.config.eos_token_id is not set: logits_eos_inf and confidence_eos_eot_inf need it")
    prompt, mask = _check_prompt(model, prompt_ids, attention_mask)
    arguments.check_fits(prompt.shape[1], model.config)
    canvas = torch.cat((prompt, prompt.new_full((prompt.shape[0], arguments.gen_length), mask_id)), dim=1)
    if mask is not None:
        mask = torch.cat((mask, mask.new_ones((mask.shape[0], arguments.gen_length))), dim=1)
    return canvas, mask


def _denoise(
    model: DenoisingModel,
    canvas: Tensor,
    attention_mask: Tensor | None,
    prompt_length: int,
    arguments: SamplerArguments,
    recorders: Sequence[Callable[[Step], None]] = (),
) -> list[_Commits]:
    """Run every step on `canvas` [B, L] in place; nothing here may wait for the device."""
    mask_id = model.config.mask_token_id
    guided = arguments.cfg_scale > 0
    noise = noise_for(arguments, canvas, attention_mask)
    given = canvas != mask_id
    batch_mask = (
        torch.cat((attention_mask, attention_mask)) if guided and attention_mask is not None else attention_mask
    )
    unlikely = unlikely_ids(model.config, canvas.device)
    commits: list[_Commits] = []
    with tqdm(total=arguments.steps, desc="denoising", delay=_PROGRESS_AFTER, disable=None, leave=False) as progress:
        for planned in schedule(arguments, prompt_length):
            rows = double(canvas, given, mask_id) if guided else canvas
            logits = model(rows, attention_mask=batch_mask).logits
            masked = candidates(canvas, mask_id, planned)
            decision = decide(logits, masked, planned.quota, planned.number, arguments, noise, unlikely)
            commits.append(_Commits(planned.number, decision.positions, decision.tokens))
            canvas.scatter_(1, decision.positions, decision.tokens)
            if recorders:
                step = decision.as_step(arguments.temperature)
                for record in recorders:
                    record(step)
                del step
            # Else they stay allocated during the next forward, with what they refer to.
            del logits, decision
            progress.update()
    return commits


def _trajectories(
    initial: Tensor,
    attention_mask: Tensor | None,
    prompt_length: int,
    commits: Sequence[_Commits],
    steps: int,
) -> list[Trajectory]:
    """Copy the run off the device, once, and cut it into rows."""
    positions = torch.cat([step.positions for step in commits], dim=1).cpu().numpy()
    tokens = torch.cat([step.tokens for step in commits], dim=1).cpu().numpy()
    column = np.repeat([step.step for step in commits], [step.positions.shape[1] for step in commits])
    canvases = initial.cpu().numpy()
    masks = None if attention_mask is None else attention_mask.cpu().numpy()
    rows = []
    for row, canvas in enumerate(canvases):
        mask = None if masks is None else masks[row]
        padding = 0 if mask is None else int(np.argmax(mask != 0))
        rows.append(
            Trajectory(
                prompt=canvas[padding:prompt_length],
                initial=canvas,
                steps=column,
                positions=positions[row],
                tokens=tokens[row],
                num_steps=steps,
                padding=padding,
                attention_mask=mask,
            )
        )
    return rows


def _check_prompt(
    model: DenoisingModel, prompt_ids: Tensor, attention_mask: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return prompt and mask on the model's device, the mask only where it hides something."""
    if not isinstance(prompt_ids, Tensor) or prompt_ids.dim() != 2 or prompt_ids.dtype not in _INTEGERS:
        raise SamplerError(f"prompt_ids must be an integer tensor [batch, length], not {_kind(prompt_ids)}")
    if prompt_ids.shape[0] == 0:
        raise SamplerError("prompt_ids holds no rows")
    device = _device(model, prompt_ids)
    prompt = prompt_ids.to(device=device, dtype=torch.long)
    vocabulary = getattr(model.config, "embedding_size", None)
    if prompt.numel() and vocabulary is not None:
        low, high = int(prompt.min()), int(prompt.max())
        if low < 0 or high >= vocabulary:
            raise SamplerError(f"prompt_ids hold {low if low < 0 else high}, outside the vocabulary of {vocabulary}")
    if attention_mask is None:
        return prompt, None
    if not isinstance(attention_mask, Tensor):
        raise SamplerError(f"attention_mask must be a tensor [batch, length], not {_kind(attention_mask)}")
    if attention_mask.shape != prompt_ids.shape:
        raise SamplerError(
            f"attention_mask {tuple(attention_mask.shape)} and prompt_ids {tuple(prompt_ids.shape)} differ in shape"
        )
    mask = attention_mask.to(device=device, dtype=torch.long)
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise SamplerError("attention_mask must hold 0 (padding) and 1 only")
    # As published: a mask that hides nothing is not applied, so that it cannot change a bit.
    return prompt, None if bool(mask.all()) else mask


def _kind(value: object) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _device(model: object, prompt_ids: Tensor) -> torch.device:
    if isinstance(model, torch.nn.Module):
        for parameter in model.parameters():
            return parameter.device
    return prompt_ids.device


def _mask_id(model: DenoisingModel) -> int:
    mask_id = getattr(getattr(model, "config", None), "mask_token_id", None)
    if mask_id is None:
        raise SamplerError("model.config.mask_token_id is not set: this is no masked diffusion model")
    return int(mask_id)
