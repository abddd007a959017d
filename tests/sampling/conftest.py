"""Models whose logits are written down, so that what the sampler makes of them can be too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

MASK, EOS, EOT, VOCABULARY = 9, 8, 7, 10

# Gives logits [B, L, V] for (ids [B, L], forward number).
Score = Callable[[Tensor, int], Tensor]


@dataclass
class ScriptedModel:
    """Answers every forward with `score` and keeps what it was asked."""

    score: Score
    config: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(
            mask_token_id=MASK, eos_token_id=EOS, eot_token_id=EOT, embedding_size=VOCABULARY
        )
    )
    inputs: list[Tensor] = field(default_factory=list)
    masks: list[Tensor | None] = field(default_factory=list)

    def __call__(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> SimpleNamespace:
        logits = self.score(input_ids, len(self.inputs))
        self.inputs.append(input_ids.clone())
        self.masks.append(attention_mask)
        return SimpleNamespace(logits=logits)


@pytest.fixture
def scripted() -> Callable[[Score], ScriptedModel]:
    return ScriptedModel


@pytest.fixture
def constant_model() -> ScriptedModel:
    """All positions alike, token 3 by far the likeliest: every confidence is equal."""

    def score(ids: Tensor, forward: int) -> Tensor:
        logits = torch.zeros(*ids.shape, VOCABULARY)
        logits[..., 3] = 4.0
        return logits

    return ScriptedModel(score)
