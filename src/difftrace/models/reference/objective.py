"""Batches and the masked-diffusion loss of the reference model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from difftrace.models.llada import LLaDAModel
from difftrace.models.reference.corpus import training_example

# No text is masked less than this (LLaDA's training code uses the same floor), so that 1/t stays bounded.
_LEAST_MASKED = 1e-3


@dataclass(frozen=True)
class Batch:
    """Token ids [B, L], and where each row's answer begins [B]."""

    ids: Tensor
    begins: Tensor


def draw_batch(rng: np.random.Generator, tokenizer: Tokenizer, size: int, length: int, eos: int) -> Batch:
    """Draw prompts with their answers, followed by EOS up to `length`."""
    rows, begins = [], []
    for _ in range(size):
        example = training_example(rng)
        prompt = tokenizer.encode(example.prompt).ids
        row = prompt + tokenizer.encode(example.answer).ids
        rows.append(row + [eos] * (length - len(row)))
        begins.append(len(prompt))
    return Batch(torch.tensor(rows), torch.tensor(begins))


def smoothing(index: Tensor) -> Tensor:
    """Return how much of its certainty the model is trained to give away at each place of an answer.

    Grows with the distance from the answer's beginning: 0.01 at its first character, 0.2 at the 16th, below 0.5
    everywhere. The best guess stays the best guess; but confidences of neighbouring places, above all in the run of
    EOS behind an answer, differ by more than arithmetic noise, so that the order of commits is
    the same on every machine. Without it they all approach 1 and the order hangs on the last bit.
    """
    return 0.01 + 0.49 * index / (index + 24.0)


def diffusion_loss(model: LLaDAModel, batch: Batch, generator: torch.Generator) -> Tensor:
    """Cross-entropy at masked answer places, weighted by 1/t (LLaDA, arXiv 2502.09992, equation 5).

    Each row has its own masking ratio t in (0, 1]; the batch's ratios are spread evenly (one draw a stratum), which
    lowers the variance. Prompts are never masked. Normalised by the length of the answer.
    """
    size, length = batch.ids.shape
    index = torch.arange(length) - batch.begins[:, None]
    answer = index >= 0
    strata = (torch.arange(size) + torch.rand(size, generator=generator)) / size
    ratio = (_LEAST_MASKED + (1 - _LEAST_MASKED) * strata)[:, None]
    masked = (torch.rand((size, length), generator=generator) < ratio) & answer
    logits = model(batch.ids.masked_fill(masked, model.config.mask_token_id)).logits
    logged = torch.log_softmax(logits, dim=-1)
    given_away = smoothing(index.clamp_min(0))
    right = logged.gather(-1, batch.ids[..., None]).squeeze(-1)
    losses = -(1 - given_away) * right - given_away * logged.mean(-1)
    weights = masked / ratio / answer.sum(dim=1, keepdim=True)
    return (losses * weights).sum() / size
