"""The calling pattern of SGLang's diffusion decoding: `DllmAlgorithm.step(forward_batch, full_logits, states)`.

All rows' blocks lie one behind the other in the flat `forward_batch.input_ids`, which a step writes in place. A block
is reported done at the step after the one that finished it, so that one more forward stores its keys and values.
Source: `python/sglang/srt/dllm/algorithm/` (`base.py`, `low_confidence.py`, `joint_threshold.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loops.choosing import above
from loops.model import MASK, Cache, TinyDenoiser
from loops.truth import Truth


@dataclass
class ForwardBatch:
    """What a step works on: `input_ids` [B * block] of the current blocks, which begin at canvas position `start`."""

    input_ids: Tensor
    batch_size: int
    start: int


@dataclass
class DllmAlgorithm:
    """What all algorithms have in common; `canvas` [B, L] is kept for the ground truth alone."""

    truth: Truth
    block_size: int = 8
    mask_id: int = MASK
    threshold: float = 0.9

    def init_step_state(self, forward_batch: ForwardBatch) -> list[Any]:
        """Return what the steps of a block remember, row by row."""
        return [None] * forward_batch.batch_size

    def max_steps(self) -> int:
        """Return after how many steps a block ends in any case."""
        return self.block_size + 1

    def step(self, forward_batch: ForwardBatch, full_logits: Tensor, states: list[Any]) -> list[bool]:
        """Change the blocks in place by `full_logits` [B * block, V]; return which were done already."""
        raise NotImplementedError

    def put_down(self, forward_batch: ForwardBatch, chosen: Tensor, tokens: Tensor) -> None:
        """Write `tokens` [B, block] to the flat ids where `chosen`, and note it."""
        blocks = forward_batch.input_ids.view(forward_batch.batch_size, self.block_size)
        before = torch.nn.functional.pad(blocks, (forward_batch.start, 0))
        self.truth.step(before, chosen, tokens, forward_batch.start)
        forward_batch.input_ids.copy_(torch.where(chosen, tokens, blocks).view(-1))

    def _shaped(self, forward_batch: ForwardBatch, full_logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the blocks, the likeliest tokens and their probabilities, each [B, block]."""
        rows = (forward_batch.batch_size, self.block_size)
        probabilities, tokens = full_logits.softmax(-1).max(-1)
        return forward_batch.input_ids.view(rows), tokens.view(rows), probabilities.view(rows)


class LowConfidence(DllmAlgorithm):
    """Puts down what is sure enough, or the surest mask."""

    def step(self, forward_batch: ForwardBatch, full_logits: Tensor, states: list[Any]) -> list[bool]:
        """Make a step of all rows at once."""
        blocks, tokens, probabilities = self._shaped(forward_batch, full_logits)
        masks = blocks == self.mask_id
        chosen = above(probabilities.masked_fill(~masks, -torch.inf), self.threshold)
        self.put_down(forward_batch, chosen, tokens)
        return (~masks.any(1)).tolist()


@dataclass
class JointThreshold(DllmAlgorithm):
    """Changes tokens that it has put down, too, for a while after the last mask is gone."""

    edit_threshold: float = 0.5
    max_post_edit_steps: int = 4

    def max_steps(self) -> int:
        """Return after how many steps a block ends in any case."""
        return self.block_size + self.max_post_edit_steps + 1

    def init_step_state(self, forward_batch: ForwardBatch) -> list[Any]:
        """Remember which positions are the prompt's, how often was edited without masks, and whether it is over."""
        given = forward_batch.input_ids.view(-1, self.block_size) != self.mask_id
        return [{"given": given[row], "edits": 0, "finished": False} for row in range(len(given))]

    def step(self, forward_batch: ForwardBatch, full_logits: Tensor, states: list[Any]) -> list[bool]:
        """Make a step row by row; rows that are finished stay as they are."""
        blocks, tokens, probabilities = self._shaped(forward_batch, full_logits)
        chosen = torch.zeros_like(blocks, dtype=torch.bool)
        done = [bool(state["finished"]) for state in states]
        for row, state in enumerate(states):
            if state["finished"]:
                continue
            masks = blocks[row] == self.mask_id
            if not masks.any():
                state["edits"] += 1
                if state["edits"] > self.max_post_edit_steps:
                    state["finished"] = True
                    continue
            confidence = probabilities[row].masked_fill(~masks, -torch.inf).unsqueeze(0)
            edited = (probabilities[row] > self.edit_threshold) & (tokens[row] != blocks[row])
            chosen[row] = above(confidence, self.threshold)[0] | (edited & ~masks & ~state["given"])
            state["finished"] = not bool(chosen[row].any())
        self.put_down(forward_batch, chosen, tokens)
        return done


@dataclass
class ModelRunner:
    """Runs the model on flat blocks against the keys and values of all blocks before."""

    model: TinyDenoiser
    past: Cache | None = None

    def forward(self, forward_batch: ForwardBatch) -> tuple[Tensor, Cache]:
        """Return logits [B * block, V], and keys and values that end with these blocks."""
        ids = forward_batch.input_ids.view(forward_batch.batch_size, -1)
        output = self.model(ids, past_key_values=self.past, use_cache=True)
        return output.logits.flatten(0, 1), output.past_key_values


@torch.no_grad()
def serve(model: TinyDenoiser, algorithm: DllmAlgorithm, prompt: Tensor, gen_length: int = 16) -> list[list[int]]:
    """Decode a batch of prompts [B, P]; return what was generated, row by row, to the end of its last block.

    The first block that is decoded begins with the end of the prompt, if that does not end with a block.
    """
    size, runner = algorithm.block_size, ModelRunner(model)
    batch, length = prompt.shape
    blocks = -(-(length + gen_length) // size)
    canvas = torch.full((batch, blocks * size), algorithm.mask_id)
    canvas[:, :length] = prompt
    algorithm.truth.begin(canvas)
    first = length // size * size
    if first:
        _, runner.past = runner.forward(ForwardBatch(canvas[:, :first].flatten(), batch, 0))
    for start in range(first, canvas.shape[1], size):
        forward_batch = ForwardBatch(canvas[:, start : start + size].flatten().clone(), batch, start)
        states = algorithm.init_step_state(forward_batch)
        logits, following = runner.forward(forward_batch)
        for _ in range(algorithm.max_steps()):
            if all(algorithm.step(forward_batch, logits, states)):
                break
            logits, following = runner.forward(forward_batch)
        runner.past = following
        canvas[:, start : start + size] = forward_batch.input_ids.view(batch, size)
    return canvas[:, length:].tolist()
