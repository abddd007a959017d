"""The calling patterns of NVlabs/Fast-dLLM, `llada/generate.py`: no cache, a prefix cache, a dual cache.

Each loop returns the canvas [B, P + gen_length] and the number of forwards. A threshold makes the number of tokens a
step puts down depend on the logits, and ends a block as soon as it holds no mask.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loops.choosing import above, best, candidates, confidences, quotas
from loops.model import MASK, Cache, TinyDenoiser
from loops.truth import Truth


class _Run:
    """The canvas, and how a step changes it."""

    def __init__(self, prompt: Tensor, gen_length: int, temperature: float, threshold: float | None, truth: Truth):
        masks = torch.full((len(prompt), gen_length), MASK, dtype=torch.long, device=prompt.device)
        self.canvas = torch.cat((prompt, masks), dim=1)
        self.temperature, self.threshold, self.truth = temperature, threshold, truth
        self.quota: list[list[int]] = []
        truth.begin(self.canvas)

    def enter(self, start: int, end: int, steps: int) -> None:
        """Begin a block: share its masks among its steps, row by row."""
        masks = (self.canvas[:, start:end] == MASK).sum(1).tolist()
        self.quota = [list(shares) for shares in zip(*(quotas(count, steps) for count in masks), strict=True)]

    def commit(self, logits: Tensor, start: int, end: int) -> None:
        """Put down tokens in the window that `logits` [B, W, V] score from column `start`, left of column `end`."""
        window = self.canvas[:, start : start + logits.shape[1]]
        open_ = window == MASK
        open_[:, end - start :] = False
        tokens = torch.where(open_, candidates(logits, self.temperature), window)
        confidence = confidences(logits, tokens, open_, torch.float64)
        chosen = best(confidence, self.quota.pop(0)) if self.threshold is None else above(confidence, self.threshold)
        self.truth.step(self.canvas, chosen, tokens, start)
        window[chosen] = tokens[chosen]

    def filled(self, start: int, end: int) -> bool:
        """Whether a block holds no mask."""
        return not (self.canvas[:, start:end] == MASK).any()


@torch.no_grad()
def generate(
    model: TinyDenoiser,
    prompt: Tensor,
    steps: int,
    gen_length: int,
    block_length: int,
    temperature: float = 0.0,
    threshold: float | None = None,
    *,
    truth: Truth,
) -> tuple[Tensor, int]:
    """Score the whole canvas at every step."""
    run, forwards = _Run(prompt, gen_length, temperature, threshold, truth), 0
    for start, end in _blocks(prompt, gen_length, block_length):
        run.enter(start, end, steps * block_length // gen_length)
        while not run.filled(start, end):
            run.commit(model(run.canvas).logits, 0, end)
            forwards += 1
    return run.canvas, forwards


@torch.no_grad()
def generate_with_prefix_cache(
    model: TinyDenoiser,
    prompt: Tensor,
    steps: int,
    gen_length: int,
    block_length: int,
    temperature: float = 0.0,
    threshold: float | None = None,
    *,
    truth: Truth,
) -> tuple[Tensor, int]:
    """Score the whole canvas once a block, then only what lies right of the block's start."""
    run, forwards = _Run(prompt, gen_length, temperature, threshold, truth), 0
    for start, end in _blocks(prompt, gen_length, block_length):
        run.enter(start, end, steps * block_length // gen_length)
        warm = model(run.canvas, use_cache=True)
        run.commit(warm.logits, 0, end)
        forwards += 1
        prefix: Cache = tuple((keys[:, :, :start], values[:, :, :start]) for keys, values in warm.past_key_values)
        while not run.filled(start, end):
            logits = model(run.canvas[:, start:], past_key_values=prefix, use_cache=True).logits
            run.commit(logits, start, end)
            forwards += 1
    return run.canvas, forwards


@torch.no_grad()
def generate_with_dual_cache(
    model: TinyDenoiser,
    prompt: Tensor,
    steps: int,
    gen_length: int,
    block_length: int,
    temperature: float = 0.0,
    threshold: float | None = None,
    *,
    truth: Truth,
) -> tuple[Tensor, int]:
    """Score the whole canvas once a block, then the block alone, telling the model by a mask where it lies."""
    run, forwards = _Run(prompt, gen_length, temperature, threshold, truth), 0
    for start, end in _blocks(prompt, gen_length, block_length):
        run.enter(start, end, steps * block_length // gen_length)
        warm = model(run.canvas, use_cache=True)
        run.commit(warm.logits, 0, end)
        forwards += 1
        replaced = torch.zeros_like(run.canvas, dtype=torch.bool)
        replaced[:, start:end] = True
        while not run.filled(start, end):
            window = run.canvas[:, start:end]
            logits = model(
                window, past_key_values=warm.past_key_values, use_cache=True, replace_position=replaced
            ).logits
            run.commit(logits, start, end)
            forwards += 1
    return run.canvas, forwards


def _blocks(prompt: Tensor, gen_length: int, block_length: int) -> list[tuple[int, int]]:
    length = prompt.shape[1]
    return [(start, start + block_length) for start in range(length, length + gen_length, block_length)]
