"""A denoiser small enough to run hundreds of times, with every argument that engines pass to theirs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

VOCABULARY, MASK, EOS, PAD = 32, 31, 30, 29
_WIDTH, _LENGTH = 16, 96

# One (keys, values) per layer, each [B, 1, T, width].
Cache = tuple[tuple[Tensor, Tensor], ...]


class Output(NamedTuple):
    """What a forward returns: `logits` [B, W, V] and, if asked for, the keys and values of everything it saw."""

    logits: Tensor
    past_key_values: Cache | None = None


class TinyDenoiser(nn.Module):
    """One layer of two-sided attention; weights follow from `seed`, whatever the device.

    `favoured` raises the logit of one token, so that a test can have masks or ends of text predicted. `calls` counts
    forwards, whichever way they were made.
    """

    def __init__(self, seed: int = 0, favoured: int | None = None, by: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator), requires_grad=False)

        self.tokens, self.places = drawn(VOCABULARY, _WIDTH), drawn(_LENGTH, _WIDTH)
        self.query, self.key, self.value = drawn(_WIDTH, _WIDTH), drawn(_WIDTH, _WIDTH), drawn(_WIDTH, _WIDTH)
        self.head = drawn(_WIDTH, VOCABULARY)
        bias = torch.zeros(VOCABULARY)
        bias[[MASK, EOS, PAD]] = -1000.0
        if favoured is not None:
            bias[favoured] = by
        self.register_buffer("bias", bias)
        self.calls = 0

    @property
    def device(self) -> torch.device:
        """Where the weights are, as engines ask for it."""
        return self.tokens.device

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | str | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
        replace_position: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Output:
        """Score the window `input_ids` [B, W], or its embeddings.

        With a cache the window lies where `replace_position` (bool [B, T]) is set, whose keys and values it replaces,
        or else behind the cache. `attention_mask` is [B, T], [B, 1, W, T], the word "full", or None.
        """
        self.calls += 1
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds = self.tokens[input_ids]
        width = inputs_embeds.shape[1]
        if position_ids is None:
            position_ids = torch.arange(width, device=self.device) + _start(past_key_values, replace_position)
        hidden = inputs_embeds + self.places[position_ids]
        keys, values = ((hidden @ matrix).unsqueeze(1) for matrix in (self.key, self.value))
        if past_key_values is not None:
            keys, values = (
                _joined(old, new, replace_position) for old, new in zip(past_key_values[0], (keys, values), strict=True)
            )
        scores = (hidden @ self.query).unsqueeze(1) @ keys.transpose(-1, -2) / _WIDTH
        if isinstance(attention_mask, Tensor):
            seen = attention_mask[:, None, None, :] if attention_mask.dim() == 2 else attention_mask
            scores = scores.masked_fill(~seen.bool(), torch.finfo(scores.dtype).min)
        mixed = (scores.softmax(-1) @ values).squeeze(1)
        logits = torch.tanh(hidden + mixed) @ self.head + self.bias
        return Output(logits, ((keys, values),) if use_cache else None)


def _start(past: Cache | None, replaced: Tensor | None) -> int:
    if replaced is not None:
        return int(replaced[0].int().argmax())
    return 0 if past is None else past[0][0].shape[2]


def _joined(old: Tensor, new: Tensor, replaced: Tensor | None) -> Tensor:
    if replaced is None:
        return torch.cat((old, new), dim=2)
    joined = old.clone()
    joined[:, :, replaced[0]] = new
    return joined
