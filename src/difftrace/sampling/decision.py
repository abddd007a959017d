"""One denoising step's decision: which token each mask would take, and which masks are committed.

Functions of tensors, none of which waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from difftrace.sampling.arguments import SamplerArguments
from difftrace.sampling.noise import Noise
from difftrace.sampling.step import Step

# Chooses [B, k] positions from confidences [B, L].
Select = Callable[[Tensor, int], Tensor]


def double(canvas: Tensor, given: Tensor, mask_id: int) -> Tensor:
    """Return the rows [2B, L] that guidance scores: `canvas` [B, L], then itself without what was `given`.

    `given` (bool [B, L]) is what the first canvas held beside masks: the prompt, padding included.
    """
    return torch.cat((canvas, canvas.masked_fill(given, mask_id)))


def unlikely_ids(config: Any, device: torch.device) -> Tensor:
    """Return the model's ids of EOS and end-of-turn, in this order, as far as it has them."""
    ids = [getattr(config, name, None) for name in ("eos_token_id", "eot_token_id")]
    return torch.tensor([token for token in ids if token is not None], dtype=torch.long, device=device)


def guide(logits: Tensor, cfg_scale: float) -> Tensor:
    """Combine a doubled batch [2B, L, V] (conditional rows first) into guided logits [B, L, V].

    Classifier-free guidance as in the published sampler: un + (scale + 1) * (cond - un).
    """
    conditional, unconditional = logits.chunk(2, dim=0)
    return unconditional + (cfg_scale + 1) * (conditional - unconditional)


def gumbel(logits: Tensor, temperature: float, uniform: Tensor) -> Tensor:
    """Perturb logits [B, L, V] so that their argmax is a sample at `temperature` > 0.

    `uniform` [B, L, V] holds random numbers of 0 to 1. In float64 as published: arXiv 2409.02908 shows why lower
    precision distorts the samples.
    """
    return logits.to(torch.float64).exp() / (-torch.log(uniform)) ** temperature


def confidence_of(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the softmax probability [B, L] of `tokens` [B, L], computed in the logits' dtype."""
    return torch.softmax(logits, dim=-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def select_stable(confidence: Tensor, count: int) -> Tensor:
    """Return the positions [B, count] of highest confidence [B, L]; among equals the leftmost comes first.

    A total order: equal confidences, the norm in bf16, cannot make two runs differ.
    """
    order = torch.sort(confidence, dim=-1, descending=True, stable=True).indices
    return order[:, :count]


def select_upstream(confidence: Tensor, count: int) -> Tensor:
    """Return the positions [B, count] that `torch.topk` picks row by row, as the published sampler does.

    Which of several equal confidences topk picks is unspecified and differs between devices and versions.
    """
    return torch.stack([torch.topk(row, k=count).indices for row in confidence])


SELECT: dict[str, Select] = {"stable": select_stable, "upstream": select_upstream}


@dataclass(frozen=True)
class Decision:
    """What a step commits, `tokens` at `positions` (each [B, k]), and what it was decided from."""

    positions: Tensor
    tokens: Tensor
    logits: Tensor
    scores: Tensor
    candidates: Tensor
    candidate_tokens: Tensor
    confidences: Tensor
    token_noise: Tensor | None
    position_noise: Tensor | None

    def as_step(self, temperature: float) -> Step:
        """Return it as what evidence is made of."""
        return Step(
            logits=self.logits,
            scores=self.scores,
            candidates=self.candidates,
            committed=torch.zeros_like(self.candidates).scatter_(1, self.positions, True),
            tokens=self.candidate_tokens,
            confidences=self.confidences,
            token_noise=self.token_noise,
            temperature=temperature,
            position_noise=self.position_noise,
        )


def decide(
    logits: Tensor,
    candidates: Tensor,
    quota: int,
    step: int,
    arguments: SamplerArguments,
    noise: Noise,
    unlikely: Tensor,
) -> Decision:
    """Decide step number `step` from the model's `logits` [B, L, V], or [2B, L, V] under guidance.

    Of the `candidates` (bool [B, L]) `quota` are committed in each row. `unlikely` holds the ids of EOS and
    end-of-turn.
    """
    scores = guide(logits, arguments.cfg_scale) if arguments.cfg_scale > 0 else logits
    if arguments.logits_eos_inf:
        scores = scores.index_fill(-1, unlikely[:1], -torch.inf)
    token_noise = position_noise = None
    noisy = scores
    if arguments.temperature > 0:
        token_noise = noise.for_tokens(step, scores.shape[-1])
        noisy = gumbel(scores, arguments.temperature, token_noise)
    tokens = noisy.argmax(dim=-1)
    if arguments.remasking == "low_confidence":
        credible = scores.index_fill(-1, unlikely, -torch.inf) if arguments.confidence_eos_eot_inf else scores
        confidences = confidence_of(credible, tokens)
    else:
        confidences = position_noise = noise.for_positions(step)
    chosen = SELECT[arguments.tie_break](confidences.masked_fill(~candidates, -torch.inf), quota)
    return Decision(
        positions=chosen,
        tokens=tokens.gather(1, chosen),
        logits=logits,
        scores=scores,
        candidates=candidates,
        candidate_tokens=tokens,
        confidences=confidences,
        token_noise=token_noise,
        position_noise=position_noise,
    )
