"""The mathematics of the architecture, against a plain second implementation and at its edges."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from difftrace.core.errors import ModelError
from difftrace.models.config import LLaDAConfig
from difftrace.models.llada import LLaDAModel, attention_bias

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def model(tiny_values: dict[str, Any], tiny_tensors: Tensors) -> LLaDAModel:
    built = LLaDAModel(LLaDAConfig.from_json(tiny_values))
    built.load_state_dict(tiny_tensors, strict=True)
    return built.eval()


def _naive_logits(config: LLaDAConfig, weights: Tensors, ids: list[int], visible: list[bool]) -> torch.Tensor:
    """One row at a time, one head at a time, in fp64: slow and obvious."""
    get = {name.removeprefix("model.transformer."): tensor.double() for name, tensor in weights.items()}
    width, size = config.head_dim, len(ids)

    def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return weight * x / (x.square().mean(-1, keepdim=True) + config.rms_norm_eps).sqrt()

    def turn(x: torch.Tensor) -> torch.Tensor:
        turned = torch.empty_like(x)
        for position in range(size):
            for pair in range(width // 2):
                angle = position / config.rope_theta ** (2 * pair / width)
                a, b = x[position, pair], x[position, pair + width // 2]
                turned[position, pair] = a * math.cos(angle) - b * math.sin(angle)
                turned[position, pair + width // 2] = b * math.cos(angle) + a * math.sin(angle)
        return turned

    x = get["wte.weight"][ids]
    hidden = torch.tensor([0.0 if seen else -1e30 for seen in visible], dtype=torch.float64)
    for layer in range(config.n_layers):
        block = {name.removeprefix(f"blocks.{layer}."): t for name, t in get.items() if f"blocks.{layer}." in name}
        normed = norm(x, block["attn_norm.weight"])
        query, key, value = (normed @ block[f"{name}_proj.weight"].T for name in "qkv")
        heads = []
        for head in range(config.n_heads):
            group = head // (config.n_heads // config.n_kv_heads)
            own, shared = slice(head * width, (head + 1) * width), slice(group * width, (group + 1) * width)
            scores = turn(query[:, own]) @ turn(key[:, shared]).T / math.sqrt(width)
            heads.append(torch.softmax(scores + hidden, dim=-1) @ value[:, shared])
        x = x + torch.cat(heads, dim=-1) @ block["attn_out.weight"].T
        normed = norm(x, block["ff_norm.weight"])
        gate = normed @ block["ff_proj.weight"].T
        x = x + (gate * torch.sigmoid(gate) * (normed @ block["up_proj.weight"].T)) @ block["ff_out.weight"].T
    return norm(x, get["ln_f.weight"]) @ get["ff_out.weight"].T


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("padding", [0, 3])
def test_shared_key_heads_and_padding_compute_what_the_plain_formula_does(
    tiny_values: dict[str, Any], n_kv_heads: int, padding: int
) -> None:
    config = LLaDAConfig.from_json({**tiny_values, "n_kv_heads": n_kv_heads})
    generator = torch.Generator().manual_seed(3)
    model = LLaDAModel(config)
    weights = {
        name: torch.randn(tensor.shape, generator=generator) / tensor.shape[-1] ** 0.5
        for name, tensor in model.state_dict().items()
    }
    model.load_state_dict(weights)
    ids = torch.randint(0, config.vocab_size, (1, 9), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, :padding] = 0
    with torch.no_grad():
        logits = model(ids, attention_mask=mask if padding else None).logits[0]
    expected = _naive_logits(config, weights, ids[0].tolist(), [bool(m) for m in mask[0]])
    assert logits.shape == (9, config.embedding_size)
    assert torch.allclose(logits.double(), expected, atol=1e-4)


def test_parameters_carry_the_published_names(model: LLaDAModel) -> None:
    parts = ("attn_norm", "ff_norm", "q_proj", "k_proj", "v_proj", "attn_out", "ff_proj", "up_proj", "ff_out")
    expected = {f"model.transformer.blocks.{layer}.{part}.weight" for layer in range(2) for part in parts}
    expected |= {f"model.transformer.{part}.weight" for part in ("wte", "ln_f", "ff_out")}
    assert set(model.state_dict()) == expected


def test_the_8b_architecture_has_the_published_size() -> None:
    config = LLaDAConfig(
        d_model=4096,
        n_layers=32,
        n_heads=32,
        n_kv_heads=32,
        mlp_hidden_size=12288,
        vocab_size=126464,
        embedding_size=126464,
        max_sequence_length=4096,
        rope_theta=500000.0,
        rms_norm_eps=1e-5,
        mask_token_id=126336,
        eos_token_id=126081,
        pad_token_id=126081,
    )
    with torch.device("meta"):
        parameters = dict(LLaDAModel(config).named_parameters())
    assert len(parameters) == 291
    assert sum(parameter.numel() for parameter in parameters.values()) == 8_015_581_184


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_row_that_sees_only_padding_still_gives_numbers(model: LLaDAModel, dtype: torch.dtype) -> None:
    mask = torch.tensor([[0, 0, 0, 0], [0, 1, 1, 1]])
    with torch.no_grad():
        logits = model.to(dtype)(torch.tensor([[1, 2, 3, 4], [38, 2, 3, 4]]), attention_mask=mask).logits
    assert logits.dtype == dtype
    assert bool(torch.isfinite(logits).all())


def test_what_stands_at_a_padded_position_does_not_matter_to_the_rest(model: LLaDAModel) -> None:
    ids = torch.tensor([[1, 2, 3, 4, 5], [30, 31, 3, 4, 5]])
    mask = torch.tensor([[0, 0, 1, 1, 1]]).expand(2, 5)
    with torch.no_grad():
        hidden = model(ids, attention_mask=mask).logits
        seen = model(ids).logits
    assert torch.allclose(hidden[0, 2:], hidden[1, 2:], atol=1e-5)
    assert not torch.allclose(seen[0, 2:], seen[1, 2:], atol=1e-2)


def test_later_positions_are_seen_by_earlier_ones(model: LLaDAModel) -> None:
    with torch.no_grad():
        logits = model(torch.tensor([[1, 2, 3], [1, 2, 30]])).logits
    assert not torch.allclose(logits[0, 0], logits[1, 0], atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_attention_bias_hides_padding_and_stays_finite(dtype: torch.dtype) -> None:
    bias = attention_bias(torch.tensor([[0, 1, 1]]), dtype)
    assert bias.shape == (1, 1, 3, 3)
    assert bias.dtype == dtype
    assert bool(torch.isfinite(bias).all())
    assert bias[0, 0, 1].tolist() == [torch.finfo(dtype).min, 0, 0]


def test_rotary_tables_stay_in_full_precision_when_the_model_is_cast(model: LLaDAModel) -> None:
    model.to(torch.bfloat16)
    cos, sin = model.model.transformer.rotary.tables(5, torch.device("cpu"))
    assert cos.dtype == sin.dtype == torch.float32
    assert cos.shape == (5, 4)


def test_more_positions_than_the_model_knows_are_refused(model: LLaDAModel) -> None:
    with pytest.raises(ModelError, match="65 positions, but the model's max_sequence_length is 64"):
        model(torch.zeros((1, 65), dtype=torch.long))
