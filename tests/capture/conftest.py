"""A model whose answers do not matter, for loops that decide by themselves what to write, and small models of
transformers, built once."""

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


@pytest.fixture(scope="session")
def llama() -> Any:
    """A Llama of two layers with random weights."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(config).eval().requires_grad_(False)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.4)
    return model


@pytest.fixture(scope="session")
def gemma() -> Any:
    """One of two layers with random weights, with blocks of 16 positions."""
    transformers = pytest.importorskip("transformers", minversion="5.0")
    kinds = pytest.importorskip("transformers.models.diffusion_gemma")
    vision = pytest.importorskip("transformers.models.gemma4.configuration_gemma4").Gemma4VisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1
    )
    text = kinds.DiffusionGemmaTextConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        global_head_dim=8,
        num_experts=2,
        top_k_experts=1,
        moe_intermediate_size=8,
        layer_types=["sliding_attention", "full_attention"],
    )
    images = {"image_token_id": 61, "boi_token_id": 62, "eoi_token_id": 63}
    config = kinds.DiffusionGemmaConfig(text_config=text, vision_config=vision, canvas_length=16, **images)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.DiffusionGemmaForBlockDiffusion(config).eval().requires_grad_(False)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare DiffusionGemma's import of torch's compiler, which takes seconds and is of no use here."""
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: None)
