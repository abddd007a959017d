"""The calling pattern of vllm-project/dllm-plugin: `RemaskingPolicy.apply(input_draft=, logits=)` of Python ints.

A policy sees one block of one request and does not know which. While masks are left nothing is committed, and the draft
goes on in `next_input_block`; when none is left the whole block is committed at once, and `next_input_block` is all
masks, for the block to come. Requests take turns. Source: `dllm_plugin/remasking/` (`base.py`, `llada2_default.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from loops.model import MASK, Cache, TinyDenoiser
from loops.truth import Truth

DRAFT_SIZE = 8


@dataclass(frozen=True)
class RemaskStepResult:
    """What a policy returns: tokens that are final, and the block to be scored next."""

    committed_token_ids: tuple[int, ...]
    next_input_block: tuple[int, ...]


class Llada2DefaultRemaskingPolicy:
    """Fills in what is surer than a threshold, or as many as are due; of equally sure ones the leftmost."""

    def apply(
        self,
        *,
        input_draft: Sequence[int],
        logits: Tensor | None = None,
        remasking_config: Mapping[str, Any] | None = None,
    ) -> RemaskStepResult:
        """Make one step of one block, given logits [DRAFT_SIZE, V]."""
        if logits is None:
            raise ValueError("logits are needed")
        config = dict(remasking_config or {})
        mask = int(config.get("mask_token_id", MASK))
        masks = [position for position, token in enumerate(input_draft) if token == mask]
        if not masks:
            return RemaskStepResult(tuple(input_draft), (mask,) * len(input_draft))
        highest, tokens = logits.softmax(-1).max(-1)
        ranked = sorted(masks, key=lambda position: (-float(highest[position]), position))
        sure = [position for position in ranked if highest[position] > config.get("commit_confidence_threshold", 0.9)]
        due = -(-len(input_draft) // int(config.get("denoise_steps", 4)))
        draft = list(input_draft)
        for position in sure if len(sure) >= due else ranked[:due]:
            draft[position] = int(tokens[position])
        if mask in draft:
            return RemaskStepResult((), tuple(draft))
        return RemaskStepResult(tuple(draft), (mask,) * len(draft))


@dataclass
class _Request:
    row: int
    past: Cache | None
    draft: tuple[int, ...]
    canvas: list[int]
    start: int
    committed: list[int] = field(default_factory=list)


@torch.no_grad()
def serve(
    model: TinyDenoiser,
    policy: Llada2DefaultRemaskingPolicy,
    prompts: Tensor,
    blocks: int = 2,
    remasking_config: Mapping[str, Any] | None = None,
    *,
    truth: Truth,
) -> list[list[int]]:
    """Decode `blocks` blocks behind each of `prompts` [B, P], one step of each request in turn; return their tokens."""
    length = prompts.shape[1]
    masks = (MASK,) * DRAFT_SIZE
    truth.begin(torch.cat((prompts, torch.full((len(prompts), blocks * DRAFT_SIZE), MASK)), dim=1))
    requests = []
    for row, prompt in enumerate(prompts):
        past = model(prompt.unsqueeze(0), use_cache=True).past_key_values
        requests.append(_Request(row, past, masks, truth.initial[row].tolist(), length))
    running = list(requests)
    while running:
        for request in running:
            output = model(torch.tensor([request.draft]), past_key_values=request.past, use_cache=True)
            result = policy.apply(input_draft=request.draft, logits=output.logits[0], remasking_config=remasking_config)
            after = result.committed_token_ids or result.next_input_block
            _note(truth, request, after, len(prompts))
            request.draft = result.next_input_block
            if result.committed_token_ids:
                request.committed += result.committed_token_ids
                # The keys and values of the block as it is now.
                final = torch.tensor([result.committed_token_ids])
                request.past = model(final, past_key_values=request.past, use_cache=True).past_key_values
                request.start += DRAFT_SIZE
        running = [request for request in running if len(request.committed) < blocks * DRAFT_SIZE]
    return [request.committed for request in requests]


def _note(truth: Truth, request: _Request, after: Sequence[int], rows: int) -> None:
    before = torch.full((rows, request.start + DRAFT_SIZE), MASK)
    tokens = torch.full((rows, DRAFT_SIZE), MASK)
    before[request.row, request.start :] = torch.tensor(request.draft)
    tokens[request.row] = torch.tensor(after)
    truth.step(before, tokens != before[:, request.start :], tokens, request.start)
