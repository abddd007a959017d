"""How the masked samplers choose: quotas, candidates, confidences, and which candidates are put down."""

from __future__ import annotations

import torch
from torch import Tensor


def quotas(masks: int, steps: int) -> list[int]:
    """Share `masks` among `steps` as the published LLaDA loop does: what is left over goes to the first steps."""
    base, over = divmod(masks, steps)
    return [base + (step < over) for step in range(steps)]


def candidates(logits: Tensor, temperature: float = 0.0) -> Tensor:
    """Return the tokens [B, L] that logits [B, L, V] stand for, with Gumbel noise at a temperature."""
    if temperature == 0:
        return logits.argmax(-1)
    wide = logits.double()
    return (wide.exp() / (-torch.log(torch.rand_like(wide))) ** temperature).argmax(-1)


def confidences(logits: Tensor, tokens: Tensor, open_: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return the probability of `tokens` [B, L] where `open_`, and minus infinity elsewhere."""
    probabilities = torch.softmax(logits if dtype is None else logits.to(dtype), dim=-1)
    return probabilities.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).masked_fill(~open_, -torch.inf)


def best(confidence: Tensor, quota: list[int]) -> Tensor:
    """Return which [B, L] are the `quota[row]` most confident of each row."""
    chosen = torch.zeros_like(confidence, dtype=torch.bool)
    for row, count in enumerate(quota):
        chosen[row, torch.topk(confidence[row], k=count).indices] = True
    return chosen


def above(confidence: Tensor, threshold: float) -> Tensor:
    """Return which [B, L] reach `threshold`, the most confident of each row in any case if it is a candidate."""
    chosen = confidence >= threshold
    first = confidence.argmax(-1, keepdim=True)
    chosen.scatter_(1, first, True)
    return chosen & (confidence > -torch.inf)
