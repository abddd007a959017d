"""The calling pattern of the published LLaDA loop (ML-GSAI/LLaDA, `generate.py`), and what runs may do in its place.

One canvas tensor is written in place and passed to every forward, guidance doubles the batch, and logits of a token to
be avoided are overwritten where the model left them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from loops.choosing import best, candidates, confidences, quotas
from loops.model import EOS, MASK, TinyDenoiser
from loops.truth import Truth


@torch.no_grad()
def generate(
    model: TinyDenoiser,
    prompt: Tensor,
    attention_mask: Tensor | None = None,
    steps: int = 8,
    gen_length: int = 16,
    block_length: int = 8,
    temperature: float = 0.0,
    cfg_scale: float = 0.0,
    logits_eos_inf: bool = False,
    embed: bool = False,
    on_step: Callable[[int], None] = lambda step: None,
    *,
    truth: Truth,
) -> Tensor:
    """Return the canvas [B, P + gen_length].

    `embed` passes `inputs_embeds` instead of ids, which nobody can record ids from. `on_step` is called after every
    step with its number, and may raise.
    """
    length = prompt.shape[1]
    masks = torch.full((len(prompt), gen_length), MASK, dtype=torch.long, device=prompt.device)
    canvas = torch.cat((prompt, masks), dim=1)
    given = canvas != MASK
    if attention_mask is not None:
        attention_mask = torch.cat((attention_mask, torch.ones_like(masks)), dim=1)
    truth.begin(canvas)
    per_block = steps * block_length // gen_length
    for start in range(length, length + gen_length, block_length):
        end = start + block_length
        inside = (canvas[:, start:end] == MASK).sum(1).tolist()
        for quota in zip(*(quotas(count, per_block) for count in inside), strict=True):
            open_ = canvas == MASK
            open_[:, end:] = False
            logits = _scores(model, canvas, given, attention_mask, cfg_scale, embed)
            if logits_eos_inf:
                logits[..., EOS] = -torch.inf
            tokens = candidates(logits, temperature)
            chosen = best(confidences(logits, tokens, open_), list(quota))
            truth.step(canvas, chosen, tokens)
            canvas[chosen] = tokens[chosen]
            on_step(truth.num_steps - 1)
    return canvas


def _scores(
    model: TinyDenoiser, canvas: Tensor, given: Tensor, attention_mask: Tensor | None, cfg_scale: float, embed: bool
) -> Tensor:
    if embed:
        return model(inputs_embeds=model.tokens[canvas], attention_mask=attention_mask).logits
    if cfg_scale == 0:
        return model(canvas, attention_mask=attention_mask).logits
    both = torch.cat((canvas, canvas.masked_fill(given, MASK)))
    doubled = None if attention_mask is None else attention_mask.repeat(2, 1)
    conditional, unconditional = model(both, attention_mask=doubled).logits.chunk(2)
    return unconditional + (cfg_scale + 1) * (conditional - unconditional)
