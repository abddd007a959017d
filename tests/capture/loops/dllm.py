"""The calling patterns of ZHZisZZ/dllm: its MDLM sampler and its block diffusion sampler (`dllm/core/samplers`).

Both return the canvas, or with `return_dict=True` histories: the first canvas and the canvas after every step. Steps
that the schedule leaves empty are dropped before they cost a forward. MDLM pads on the right with EOS; block diffusion
pads on the left to whole blocks and lengthens its canvas block by block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from loops.choosing import best, candidates, confidences
from loops.model import EOS, MASK, PAD, TinyDenoiser
from loops.truth import Truth


@dataclass
class SamplerOutput:
    """What is returned where a dictionary was asked for."""

    sequences: Tensor
    histories: list[Tensor] | None = None


def linear_quotas(masks: int, steps: int) -> list[int]:
    """Share `masks` among `steps` where every mask goes at step s with probability 1 / (steps - s).

    Expected numbers are rounded half to even: 10 masks in 4 steps give 2, 3, 2 and 3. Empty steps are dropped.
    """
    shares = []
    for step in range(steps):
        # t and s as fractions of the steps, since dividing in another order rounds other halves.
        t, s = (steps - step) / steps, (steps - step - 1) / steps
        share = min(masks, round(masks * (1 - s / t)))
        masks -= share
        if share:
            shares.append(share)
    return shares


def _by_step(masks: list[int], steps: int) -> list[list[int]]:
    """Return each step's quotas of all rows; rows with fewer steps wait at the end."""
    rows = [linear_quotas(count, steps) for count in masks]
    longest = max(map(len, rows))
    return [[row[step] if step < len(row) else 0 for row in rows] for step in range(longest)]


@dataclass
class MDLMSampler:
    """The sampler of masked diffusion models."""

    model: TinyDenoiser
    truth: Truth

    @torch.no_grad()
    def sample(
        self,
        inputs: list[list[int]],
        steps: int = 8,
        max_new_tokens: int = 16,
        block_size: int = 8,
        temperature: float = 0.0,
        cfg_scale: float = 0.0,
        suppress_tokens: list[int] | None = None,
        right_shift_logits: bool = False,
        return_dict: bool = False,
    ) -> SamplerOutput | Tensor:
        """Fill `max_new_tokens` masks behind each of `inputs`; shorter rows end in EOS that is not attended to."""
        lengths = [len(row) for row in inputs]
        canvas = torch.full((len(inputs), max(lengths) + max_new_tokens), EOS)
        attention_mask = torch.zeros_like(canvas)
        for row, prompt in enumerate(inputs):
            canvas[row, : len(prompt)] = torch.tensor(prompt)
            canvas[row, len(prompt) : len(prompt) + max_new_tokens] = MASK
            attention_mask[row, : len(prompt) + max_new_tokens] = 1
        given = (canvas != MASK) & attention_mask.bool()
        self.truth.begin(canvas)
        histories = [canvas.clone()]
        columns = torch.arange(canvas.shape[1])
        blocks = -(-max_new_tokens // block_size)
        for block in range(blocks):
            begins = torch.tensor(lengths).unsqueeze(1) + block * block_size
            inside = (canvas == MASK) & (columns >= begins) & (columns < begins + block_size)
            for quota in _by_step(inside.sum(1).tolist(), -(-steps // blocks)):
                open_ = (canvas == MASK) & (columns < begins + block_size)
                logits = self._scores(canvas, given, attention_mask, cfg_scale)
                for token in suppress_tokens or ():
                    logits[:, :, token] = -torch.inf
                if right_shift_logits:
                    logits = torch.cat((logits[:, :1], logits[:, :-1]), dim=1)
                tokens = candidates(logits, temperature)
                chosen = best(confidences(logits, tokens, open_), quota)
                self.truth.step(canvas, chosen, tokens)
                canvas[chosen] = tokens[chosen]
                histories.append(canvas.clone())
        return SamplerOutput(canvas, histories) if return_dict else canvas

    def _scores(self, canvas: Tensor, given: Tensor, attention_mask: Tensor, cfg_scale: float) -> Tensor:
        if cfg_scale == 0:
            return self.model(canvas, attention_mask=attention_mask).logits
        both = torch.cat((canvas, canvas.masked_fill(given, MASK)))
        conditional, unconditional = self.model(both, attention_mask=attention_mask.repeat(2, 1)).logits.chunk(2)
        return unconditional + (cfg_scale + 1) * (conditional - unconditional)


@dataclass
class BD3LMSampler:
    """The sampler of block diffusion models."""

    model: TinyDenoiser
    truth: Truth

    @torch.no_grad()
    def sample(
        self,
        inputs: list[list[int]],
        steps: int = 8,
        max_new_tokens: int = 16,
        block_size: int = 8,
        temperature: float = 0.0,
        cfg_scale: float = 0.0,
        return_dict: bool = False,
    ) -> SamplerOutput | Tensor:
        """Lengthen left-padded `inputs` by blocks until `max_new_tokens` are there or all rows hold an EOS.

        A forward of everything so far comes before each block and puts down nothing. Guidance is a second forward of
        the same block against another cache, not a doubled batch.
        """
        width = -(-max(map(len, inputs)) // block_size) * block_size
        canvas = torch.full((len(inputs), width), PAD)
        for row, prompt in enumerate(inputs):
            canvas[row, width - len(prompt) :] = torch.tensor(prompt)
        given = canvas != PAD
        self.truth.begin(canvas)
        histories = [canvas.clone()]
        blocks = -(-max_new_tokens // block_size)
        done = torch.zeros(len(inputs), dtype=torch.bool)
        for block in range(blocks):
            if done.all():
                break
            start = canvas.shape[1]
            length = min(block_size, max_new_tokens - block * block_size)
            contexts = [canvas]
            if cfg_scale > 0:
                contexts.append(canvas.masked_fill(torch.nn.functional.pad(given, (0, start - width)), MASK))
            seen, places = _staircase(canvas, block_size)
            pasts = [self.model(ids, seen, places, use_cache=True).past_key_values for ids in contexts]
            masks = torch.full((len(canvas), length), MASK)
            self.truth.grow(masks)
            canvas = torch.cat((canvas, masks), dim=1)
            seen, places = _staircase(canvas, block_size)
            for quota in _by_step([length] * len(canvas), -(-steps // blocks)):
                window = canvas[:, start:]
                scores = [self.model(window, seen[:, :, start:], places[:, start:], past).logits for past in pasts]
                logits = scores[0] if cfg_scale == 0 else scores[1] + (cfg_scale + 1) * (scores[0] - scores[1])
                tokens = candidates(logits, temperature)
                chosen = best(confidences(logits, tokens, window == MASK), quota)
                self.truth.step(canvas, chosen, tokens, start)
                # The block is replaced by a new one, and the canvas written as a whole.
                canvas[:, start:] = torch.where(chosen, tokens, window)
                histories.append(canvas.clone())
            done |= (canvas[:, start:] == EOS).any(1)
        return SamplerOutput(canvas, histories) if return_dict else canvas


def _staircase(canvas: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """Return which columns each column attends to, bool [B, 1, L, L], and where it lies behind the padding [B, L].

    It attends to its block and those before, but to no padding.
    """
    real = canvas != PAD
    block = torch.arange(canvas.shape[1]) // block_size
    seen = (block[None, :] <= block[:, None])[None] & real[:, None, :] & real[:, :, None]
    return seen.unsqueeze(1), (real.cumsum(1) - 1).clamp(min=0)
