"""The calling pattern of inclusionAI/dInfer: whichever way a block was scored, `decoder.decode` changes the canvas.

The canvas is no tensor but an array around one. With a cache, every `refresh`-th forward scores the whole canvas and is
decoded as well. A decoder may mask tokens again. When a row of a block holds EOS, the rest of its canvas is filled with
EOS without a forward. Source: `python/dinfer/decoding/` (`generate_uniform.py`, `parallel_strategy.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loops.choosing import above
from loops.model import EOS, MASK, Cache, TinyDenoiser
from loops.truth import Truth


class TokenArray:
    """The canvas: a prompt [B, P] and masks behind it, indexed as the tensor `data` would be."""

    def __init__(self, prompt: Tensor, gen_length: int) -> None:
        masks = torch.full((len(prompt), gen_length), MASK)
        self.data = torch.cat((prompt, masks), dim=1)

    @property
    def batch_size(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> Tensor:
        return self.data[index]

    def __setitem__(self, index: Any, tokens: Any) -> None:
        self.data[index] = tokens

    def get_generated_tokens(self) -> Tensor:
        """Return the one row without EOS, prompt included, [1, L']; a batch as it is."""
        return self.data[self.data != EOS].unsqueeze(0) if self.batch_size == 1 else self.data


@dataclass
class ParallelDecoder:
    """What all decoders have in common."""

    truth: Truth
    threshold: float = 0.9
    mask_id: int = MASK
    eos_id: int = EOS

    def block_init(self, block_x: Tensor, block_id: int) -> None:
        """Get ready for a block, given what it holds."""

    def decode(self, logits: Tensor, block_start: int, block_end: int, x: TokenArray) -> None:
        """Write to the block of `x` what `logits` [B, end - start, V] say."""
        raise NotImplementedError


class ThresholdParallelDecoder(ParallelDecoder):
    """Puts down whatever is sure enough, and the surest mask in any case."""

    def decode(self, logits: Tensor, block_start: int, block_end: int, x: TokenArray) -> None:
        """Write to the block of `x`."""
        block = x[:, block_start:block_end]
        probability, tokens = logits.softmax(-1).max(-1)
        chosen = above(probability.masked_fill(block != self.mask_id, -torch.inf), self.threshold)
        self.truth.step(x.data, chosen, tokens, block_start)
        x[:, block_start:block_end] = torch.where(chosen, tokens, block)


@dataclass
class HierarchyRemaskDecoder(ParallelDecoder):
    """Puts down the surest of every stretch of masks, and masks again what has become improbable.

    More tokens are put down than masked at every step, so that a block ends.
    """

    remask_threshold: float = 0.4

    def decode(self, logits: Tensor, block_start: int, block_end: int, x: TokenArray) -> None:
        """Write to the block of `x`."""
        block = x[:, block_start:block_end]
        probability, tokens = logits.softmax(-1).max(-1)
        doubtful = (probability < self.remask_threshold) & (block != self.mask_id)
        open_ = doubtful | (block == self.mask_id)
        confidence = probability.masked_fill(~open_, -torch.inf)
        chosen = confidence > self.threshold
        for row in range(len(block)):
            if not (block[row] == self.mask_id).any():
                doubtful[row] = False
                continue
            for start, end in _stretches(open_[row]):
                chosen[row, start + int(confidence[row, start:end].argmax())] = True
            missing = int(doubtful[row].sum()) + 1 - int(chosen[row].sum())
            if missing > 0:
                left = confidence[row].masked_fill(chosen[row], -torch.inf)
                chosen[row, left.topk(min(missing, int((left > -torch.inf).sum()))).indices] = True
        masked_again = doubtful & ~chosen
        tokens = tokens.masked_fill(masked_again, self.mask_id)
        # Nothing is written to a row whose masks are gone.
        chosen = (chosen | masked_again) & (block == self.mask_id).any(1, keepdim=True)
        self.truth.step(x.data, chosen, tokens, block_start)
        x[:, block_start:block_end] = torch.where(chosen, tokens, block)


def _stretches(open_: Tensor) -> list[tuple[int, int]]:
    """Return where each run of set elements begins and ends."""
    edges = torch.diff(torch.nn.functional.pad(open_.int(), (1, 1)))
    return list(zip((edges == 1).nonzero()[:, 0].tolist(), (edges == -1).nonzero()[:, 0].tolist(), strict=True))


@dataclass
class BlockWiseDiffusionLLM:
    """Decodes block by block.

    `cache` is None, or "dual": keys and values of the whole canvas are kept, and made anew now and then.
    """

    model: TinyDenoiser
    decoder: ParallelDecoder
    early_stop: bool = True
    cache: str | None = None
    refresh: int = 3

    @torch.no_grad()
    def generate(self, prompt: Tensor, gen_length: int = 16, block_length: int = 8) -> Tensor:
        """Return prompt and text without EOS [1, L'], of a batch the canvas [B, L]."""
        x = TokenArray(prompt, gen_length)
        truth = self.decoder.truth
        truth.begin(x.data)
        kept: Cache | None = None
        length = prompt.shape[1]
        for block_id, start in enumerate(range(length, length + gen_length, block_length)):
            end = start + block_length
            self.decoder.block_init(x[:, start:end], block_id)
            forwards = 0
            while (x[:, start:end] == self.decoder.mask_id).any():
                if self.cache is None:
                    logits = self.model(x.data).logits[:, start:end]
                else:
                    if kept is None or forwards % self.refresh == 0:
                        whole = self.model(x.data, use_cache=True)
                        kept = whole.past_key_values
                        self.decoder.decode(whole.logits[:, start:end], start, end, x)
                    replaced = torch.zeros_like(x.data, dtype=torch.bool)
                    replaced[:, start:end] = True
                    logits = self.model(
                        x[:, start:end], past_key_values=kept, use_cache=True, replace_position=replaced
                    ).logits
                self.decoder.decode(logits, start, end, x)
                forwards += 1
            ended = (x[:, start:end] == self.decoder.eos_id).any(1)
            if self.early_stop and ended.any():
                rest = ended.unsqueeze(1) & (x[:, end:] != self.decoder.eos_id)
                truth.also(x.data, rest, torch.full_like(rest, self.decoder.eos_id, dtype=torch.long), end)
                x[ended, end:] = self.decoder.eos_id
        return x.get_generated_tokens()
