"""What steps were decided from, reduced to their evidence on the device, many steps at a time.

A small model then pays a few operations a run instead of a few a step. Nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from difftrace.core.evidence import DIGEST_LANES, REJECTED
from difftrace.sampling.decision import gumbel
from difftrace.sampling.hashing import row_hashes
from difftrace.sampling.rows import Places, for_rows, places_of
from difftrace.sampling.sketch import as_logits, project
from difftrace.sampling.step import Step
from difftrace.sampling.tables import (
    CONDITIONAL,
    POSITION_NOISE,
    TOKEN_NOISE,
    UNCONDITIONAL,
    position_keys,
    position_signs,
)

# Tables of position keys are made for multiples of this, so that runs of different lengths share them.
_TABLE: Final = 256


@dataclass(frozen=True)
class StepColumns:
    """`difftrace.core.evidence.Evidence`'s columns of S steps, each [S, B, ...], on the device."""

    candidates: Tensor
    rejected_positions: Tensor
    rejected_tokens: Tensor
    rejected_confidences: Tensor
    ties: Tensor
    non_finite: Tensor
    logits_digests: Tensor
    sketches: Tensor
    sketched: Tensor
    noise_digests: Tensor


@dataclass(frozen=True)
class EventColumns:
    """The same of N events of those steps, each [N], on the device: by step, batch row, then position.

    `rows` are the batch rows; what is no event after all has `real` unset.
    """

    rows: Tensor
    real: Tensor
    top_tokens: Tensor
    top_scores: Tensor
    runner_up_tokens: Tensor
    runner_up_scores: Tensor
    confidences: Tensor


@dataclass(frozen=True)
class LogitsColumns:
    """Those of `StepColumns` that say what the model returned, of one step: each [B, ...], on the device."""

    digests: Tensor
    sketches: Tensor
    sketched: Tensor
    non_finite: Tensor


def reduce_logits(step: Step, first: Tensor, candidates: int) -> LogitsColumns:
    """Reduce the logits of one step alone, to the numbers that `reduce_steps` makes of them.

    `first` [B] is the canvas position of each row's first real token, `candidates` how many there are in all.
    """
    masks = step.candidates.unsqueeze(0)
    positions = _relative_positions(masks, first, step.start)
    digests, sketches, non_finite = _of_logits([step], places_of(masks, [candidates]), masks, positions)
    return LogitsColumns(digests[0], sketches[0], _sketched(masks, step)[0], non_finite[0])


def reduce_steps(
    steps: Sequence[Step], first: Tensor, candidates: Sequence[int], commits: Sequence[int]
) -> tuple[StepColumns, EventColumns]:
    """Reduce `steps` of one kind.

    `first` [B] is the canvas position of each row's first real token. `candidates` and `commits` say how many there
    are at each step over the whole batch; more may be said, at the cost of more work and of unreal events.
    """
    masks = torch.stack([step.candidates for step in steps])
    committed = torch.stack([step.committed for step in steps])
    confidences = torch.stack([step.confidences for step in steps])
    tokens = torch.stack([step.tokens for step in steps])
    positions = _relative_positions(masks, first, steps[0].start)
    where = places_of(masks, candidates)
    logits_digests, sketches, non_finite = _of_logits(steps, where, masks, positions)
    rejected, real = _best_rejected(confidences, masks & ~committed)
    columns = StepColumns(
        candidates=masks.sum(-1),
        rejected_positions=(rejected + steps[0].start).masked_fill(~real, -1),
        rejected_tokens=tokens.gather(-1, rejected).masked_fill(~real, -1),
        rejected_confidences=as_logarithm(confidences.gather(-1, rejected)).masked_fill(~real, torch.nan),
        ties=_ties(confidences, masks, committed),
        non_finite=non_finite,
        logits_digests=logits_digests,
        sketches=sketches,
        sketched=_sketched(masks, steps[0]),
        noise_digests=_noise_digests(steps, where, masks, positions),
    )
    return columns, _events(steps, places_of(committed, commits), committed, confidences)


def _relative_positions(masks: Tensor, first: Tensor, start: int) -> Tensor:
    """Return [B, W] positions counted from each row's first real token, taken modulo a table's length."""
    columns = torch.arange(start, start + masks.shape[-1], device=masks.device)
    return (columns - first.unsqueeze(-1)) % table_length(start + masks.shape[-1])


def table_length(length: int) -> int:
    """Return how many positions the tables have that serve canvases of `length`."""
    return -(-length // _TABLE) * _TABLE


def _of_logits(steps: Sequence[Step], where: Places, masks: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return digests [S, B, DIGEST_LANES], sketches [S, B, PROJECTIONS] and non-finite counts [S, B]."""
    digests = sketches = non_finite = torch.zeros((), dtype=torch.int64, device=masks.device)
    length = table_length(steps[0].start + masks.shape[-1])
    batch = masks.shape[1]
    for part in (CONDITIONAL, UNCONDITIONAL)[: steps[0].passes]:
        rows = [step.logits[part * batch : (part + 1) * batch] for step in steps]
        hashes, projections, bad = (_spread(each, where, masks) for each in for_rows(of_rows, where, rows))
        digests = digests + (hashes * position_keys(length, part, masks.device)[positions]).sum(-2)
        sketches = sketches + (projections * position_signs(length, part, masks.device)[positions]).sum(-2)
        non_finite = non_finite + bad.sum(-1)
    return digests, as_logits(sketches), non_finite


def of_rows(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what each of `rows` [N, V] of logits adds to its step before its position has a say: hashes
    [N, DIGEST_LANES], projections [N, PROJECTIONS] and the number of those that are not finite [N]."""
    finite = rows.abs() < torch.inf
    return row_hashes(rows, DIGEST_LANES), project(rows), rows.shape[1] - finite.sum(1)


def _sketched(masks: Tensor, step: Step) -> Tensor:
    """Return how many logits the candidates of `masks` [S, B, W] have, [S, B]."""
    return masks.sum(-1) * (step.passes * step.logits.shape[-1])


def _spread(values: Tensor, where: Places, masks: Tensor) -> Tensor:
    """Put int64 `values` [N, ...] of the places back where they came from, [S, B, W, ...], 0 where no mask is set."""
    spread = values.new_zeros((masks.numel(), *values.shape[1:])).index_copy_(0, where.flat, values)
    spread = spread.view(*masks.shape, *values.shape[1:])
    return spread * masks.view(*masks.shape, *[1] * (values.dim() - 1))


def _noise_digests(steps: Sequence[Step], where: Places, masks: Tensor, positions: Tensor) -> Tensor:
    digests = torch.zeros(masks.shape[:2], dtype=torch.int64, device=masks.device)
    length = table_length(steps[0].start + masks.shape[-1])
    drawn = [step.token_noise for step in steps if step.token_noise is not None]
    if drawn:
        (hashes,) = for_rows(lambda rows: (row_hashes(rows, 1),), where, drawn)
        keys = position_keys(length, TOKEN_NOISE, masks.device)[positions][..., 0]
        digests = digests + (_spread(hashes[:, 0], where, masks) * keys).sum(-1)
    drawn = [step.position_noise for step in steps if step.position_noise is not None]
    if drawn:
        hashes = row_hashes(torch.stack(drawn).view(-1, 1), 1).view(masks.shape)
        keys = position_keys(length, POSITION_NOISE, masks.device)[positions][..., 0]
        digests = digests + (hashes * masks * keys).sum(-1)
    return digests


def _best_rejected(confidences: Tensor, rejected: Tensor) -> tuple[Tensor, Tensor]:
    """Return the columns [S, B, REJECTED] of highest confidence among the `rejected` [S, B, W], and which are real.

    Among equals the leftmost comes first: the sampler's own order, where that is a total one.
    """
    order = confidences.argsort(dim=-1, descending=True, stable=True)
    ranked = rejected.gather(-1, order).to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
    best = order.gather(-1, ranked[..., :REJECTED])
    missing = (0, REJECTED - best.shape[-1])
    return functional.pad(best, missing), functional.pad(rejected.gather(-1, best), missing)


def _ties(confidences: Tensor, masks: Tensor, committed: Tensor) -> Tensor:
    worst = confidences.masked_fill(~committed, torch.inf).amin(-1, keepdim=True)
    return ((confidences == worst) & masks & ~committed).sum(-1)


def _events(steps: Sequence[Step], where: Places, committed: Tensor, confidences: Tensor) -> EventColumns:
    scores = [step.scores for step in steps]
    noise = [step.token_noise for step in steps if step.token_noise is not None]
    best = partial(best_two, steps[0].temperature)
    tokens, values = for_rows(best, where, scores, *([noise] if noise else []))
    batch, width = committed.shape[1:]
    return EventColumns(
        rows=where.flat // width % batch,
        real=committed.flatten()[where.flat],
        top_tokens=tokens[:, 0],
        top_scores=values[:, 0],
        runner_up_tokens=tokens[:, 1],
        runner_up_scores=values[:, 1],
        confidences=as_logarithm(confidences.flatten()[where.flat]),
    )


def best_two(temperature: float, scores: Tensor, uniform: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the tokens [n, 2] of highest score, the lower id among equals, and their scores with the noise."""
    # Exact, and faster than 16 bits on a CPU.
    scores = scores if scores.dtype == torch.float64 else scores.float()
    # Ranked by what the sampler ranks by, rounding included, so that the best is what the sampler took.
    values = scores if uniform is None else gumbel(scores, temperature, uniform)
    best = values.argmax(-1, keepdim=True)
    second = values.scatter(-1, best, -torch.inf).argmax(-1, keepdim=True)
    # Where all others are -inf too, that is the best again if its id is 0.
    second = (second + (second == best)) % scores.shape[-1]
    tokens = torch.cat((best, second), dim=-1)
    values = scores.gather(-1, tokens)
    if uniform is not None:
        values = values.double() - temperature * torch.log(-torch.log(uniform.gather(-1, tokens)))
    return tokens, values.float()


def as_logarithm(confidences: Tensor) -> Tensor:
    """Return the logarithms in float32: -inf for 0, as for the -inf of what was given no confidence."""
    wide = confidences if confidences.dtype == torch.float64 else confidences.float()
    return wide.clamp(min=0).log().float()
