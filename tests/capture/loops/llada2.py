"""The calling pattern of LLaDA2.x's `generate`: a method that calls `self.forward`, so that no hook of a module fires.

The canvas is whole blocks long, but each forward gets it only up to the end of the current block. LLaDA2.1 also changes
tokens that it has put down before, where the model is sure enough of another. Text after EOS is cut off at the end.
Source: the modelling files of inclusionAI/LLaDA2.0-mini and LLaDA2.1-mini.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loops.choosing import above
from loops.model import EOS, MASK, TinyDenoiser
from loops.truth import Truth


class LLaDA2Model(TinyDenoiser):
    """A model that edits: it samples with `generate`."""

    truth: Truth

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor,
        gen_length: int = 16,
        block_length: int = 8,
        threshold: float = 0.9,
        editing_threshold: float | None = None,
        max_post_steps: int = 4,
    ) -> Tensor:
        """Return what was generated for one prompt [1, P], [1, G], up to and with the first EOS.

        The prompt need not end with a block. `editing_threshold` None is LLaDA2.0: a block ends when its masks are
        gone. Otherwise it goes on until nothing is edited any more, or for `max_post_steps`.
        """
        length = inputs.shape[1]
        blocks = -(-(length + gen_length) // block_length)
        canvas = torch.full((1, blocks * block_length), MASK)
        canvas[:, :length] = inputs
        self.truth.begin(canvas)
        block_of = torch.arange(canvas.shape[1]) // block_length
        staircase = (block_of[None, :] <= block_of[:, None])[None, None]
        for start in range(length // block_length * block_length, canvas.shape[1], block_length):
            end = start + block_length
            given = torch.arange(start, end).unsqueeze(0) < length
            after_the_masks = 0
            while True:
                window = canvas[:, :end]
                logits = self.forward(window, attention_mask=staircase[:, :, :end, :end]).logits[:, start:]
                block = canvas[:, start:end]
                masks = block == MASK
                if not masks.any():
                    after_the_masks += 1
                probability, tokens = logits.softmax(-1).max(-1)
                chosen = above(probability.masked_fill(~masks, -torch.inf), threshold)
                if editing_threshold is not None:
                    chosen = chosen | ((probability > editing_threshold) & (tokens != block) & ~masks & ~given)
                self.truth.step(canvas, chosen, tokens, start)
                canvas[:, start:end] = torch.where(chosen, tokens, block)
                filled = not (canvas[:, start:end] == MASK).any()
                if filled and (editing_threshold is None or not chosen.any() or after_the_masks >= max_post_steps):
                    break
            if (canvas[:, max(start, length) : end] == EOS).any():
                break
        generated = canvas[:, length : length + gen_length]
        ends = (generated[0] == EOS).nonzero()
        return generated[:, : int(ends[0]) + 1] if len(ends) else generated
