"""LLaDA's bidirectional transformer under the published tensor names.

The mathematics follows the published modelling file (`modeling_llada.py`, block type "llama"): pre-norm
blocks, RMSNorm and rotary embedding in fp32, attention without a causal mask, gated SiLU feed-forward.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from difftrace.core.errors import ModelError
from difftrace.models.config import LLaDAConfig


class ModelOutput(NamedTuple):
    """What a forward pass returns: `logits` [B, L, embedding_size] in the model's dtype."""

    logits: Tensor


class Linear(nn.Linear):
    """A linear layer without values on the meta device, where torch would load its compiler in order to draw them."""

    def reset_parameters(self) -> None:
        """Draw the weights, where there is memory for them."""
        if not self.weight.is_meta:
            super().reset_parameters()


class Embedding(nn.Embedding):
    """An embedding without values on the meta device, for the same reason."""

    def reset_parameters(self) -> None:
        """Draw the weights, where there is memory for them."""
        if not self.weight.is_meta:
            super().reset_parameters()


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis: computed in fp32, cast back, then scaled by the weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [..., width]."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class Rotary:
    """Rotate-half rotary embedding over absolute indices, in fp32.

    A plain object, not a module: its tables are derived from the config, so they belong in no checkpoint and
    must not follow `model.to(dtype)`. They are built on the device that asks and kept per length.
    """

    def __init__(self, config: LLaDAConfig) -> None:
        self._dim = config.head_dim
        self._theta = config.rope_theta
        self._tables: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def tables(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return (cos, sin), each [length, head_dim] fp32."""
        key = (length, device)
        if key not in self._tables:
            if len(self._tables) >= 16:
                self._tables.clear()
            exponents = torch.arange(0, self._dim, 2, device=device, dtype=torch.float32) / self._dim
            frequencies = 1.0 / (self._theta**exponents)
            angles = torch.outer(torch.arange(length, device=device, dtype=torch.float32), frequencies)
            angles = torch.cat((angles, angles), dim=-1)
            self._tables[key] = (angles.cos(), angles.sin())
        return self._tables[key]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate heads [B, H, L, head_dim] by the tables [L, head_dim]; computed in fp32, returned in x's dtype."""
    wide = x.float()
    first, second = wide.chunk(2, dim=-1)
    return (wide * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)


class Block(nn.Module):
    """One pre-norm transformer layer; sub-modules carry the published names."""

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__()
        width, hidden = config.d_model, config.mlp_hidden_size
        kv_width = config.n_kv_heads * config.head_dim
        self.n_heads, self.n_kv_heads, self.head_dim = config.n_heads, config.n_kv_heads, config.head_dim
        self.attn_norm = RMSNorm(width, config.rms_norm_eps)
        self.ff_norm = RMSNorm(width, config.rms_norm_eps)
        self.q_proj = Linear(width, width, bias=False)
        self.k_proj = Linear(width, kv_width, bias=False)
        self.v_proj = Linear(width, kv_width, bias=False)
        self.attn_out = Linear(width, width, bias=False)
        self.ff_proj = Linear(width, hidden, bias=False)
        self.up_proj = Linear(width, hidden, bias=False)
        self.ff_out = Linear(hidden, width, bias=False)

    def _heads(self, x: Tensor, count: int) -> Tensor:
        return x.view(x.shape[0], x.shape[1], count, self.head_dim).transpose(1, 2)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor | None) -> Tensor:
        """Map [B, L, d_model] to the same shape; `bias` [B, 1, L, L] is added to the attention scores."""
        normed = self.attn_norm(x)
        query = rotate(self._heads(self.q_proj(normed), self.n_heads), cos, sin)
        key = rotate(self._heads(self.k_proj(normed), self.n_kv_heads), cos, sin)
        value = self._heads(self.v_proj(normed), self.n_kv_heads)
        if self.n_kv_heads != self.n_heads:
            groups = self.n_heads // self.n_kv_heads
            key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, is_causal=False)
        x = x + self.attn_out(mixed.transpose(1, 2).reshape(x.shape))
        normed = self.ff_norm(x)
        hidden: Tensor = self.ff_out(functional.silu(self.ff_proj(normed)) * self.up_proj(normed))
        return x + hidden


class Transformer(nn.Module):
    """Embedding, blocks, final norm and head; sub-modules carry the published names."""

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__()
        self.rotary = Rotary(config)
        self.wte = Embedding(config.embedding_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.ln_f = RMSNorm(config.d_model, config.rms_norm_eps)
        self.ff_out = Linear(config.d_model, config.embedding_size, bias=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Map ids [B, L] to logits [B, L, embedding_size]."""
        x = self.wte(input_ids)
        cos, sin = self.rotary.tables(input_ids.shape[1], x.device)
        bias = None if attention_mask is None else attention_bias(attention_mask, x.dtype)
        for block in self.blocks:
            x = block(x, cos, sin, bias)
        logits: Tensor = self.ff_out(self.ln_f(x))
        return logits


class _Nest(nn.Module):
    """The level between wrapper and transformer that the published names show."""

    def __init__(self, transformer: Transformer) -> None:
        super().__init__()
        self.transformer = transformer


class LLaDAModel(nn.Module):
    """LLaDA as published: `model(input_ids, attention_mask=None).logits`.

    `state_dict` names equal the checkpoint's (`model.transformer.wte.weight`,
    `model.transformer.blocks.{i}.q_proj.weight`, ...).
    """

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _Nest(Transformer(config))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> ModelOutput:
        """Score every position.

        `input_ids` [B, L] integers, `attention_mask` [B, L] with 0 at padding (None: nothing is padding).
        Returns logits [B, L, embedding_size]. Positions count from the left end, padding included, as in the
        published model. Raises ModelError for more positions than `max_sequence_length`.
        """
        length = input_ids.shape[1]
        if length > self.config.max_sequence_length:
            raise ModelError(
                f"{length} positions, but the model's max_sequence_length is {self.config.max_sequence_length}"
            )
        return ModelOutput(self.model.transformer(input_ids, attention_mask))


def attention_bias(attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a padding mask [B, L] into an additive bias [B, 1, L, L] in `dtype`.

    Masked keys get the smallest finite fp32 value cast to `dtype` and kept finite, so that a row that sees
    nothing but padding yields numbers instead of NaN (as published).
    """
    batch, length = attention_mask.shape
    lowest = torch.finfo(torch.float32).min
    bias = (1.0 - attention_mask.to(torch.float32)) * lowest
    bias = bias.to(dtype).clamp_min(torch.finfo(dtype).min)
    return bias[:, None, None, :].expand(batch, 1, length, length)
