"""A model whose answers do not matter, for loops that decide by themselves what to write."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

MASK, VOCABULARY = 9, 10


class Scorer(nn.Module):
    """Answers [R, W] ids with logits [R, W, V] that depend on them, and says what it is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(VOCABULARY))
        self.config = SimpleNamespace(mask_token_id=MASK, vocab_size=VOCABULARY)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        replace_position: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> SimpleNamespace:
        """Look every token up."""
        states = self.weight[input_ids] if inputs_embeds is None else inputs_embeds
        return SimpleNamespace(logits=states.cumsum(1), past_key_values=past_key_values)


@pytest.fixture
def scorer() -> Scorer:
    return Scorer().requires_grad_(False)


@pytest.fixture
def canvas() -> Callable[..., Tensor]:
    """Rows of digits, `_` for a mask: canvas("12__", "34__")."""

    def make(*rows: str) -> Tensor:
        return torch.tensor([[MASK if sign == "_" else int(sign) for sign in row] for row in rows])

    return make
