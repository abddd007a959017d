"""One denoising step's decision: which token each mask would take, and which masks are committed.

Pure functions of tensors, none of which waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Chooses [B, k] positions from confidences [B, L].
Select = Callable[[Tensor, int], Tensor]


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
