"""The calling pattern of Dream's `diffusion_generate`: logits shifted by one, and a hook that may rewrite the canvas.

The model's row p - 1 scores position p. `generation_tokens_hook_func(step, canvas, logits)` is called before the first
step with step and logits None, then after every step; the canvas it returns is the one that goes on. The hook of the
logits comes between model and choice. Sources: Dream-org/Dream-v0-Instruct-7B `generation_utils.py`, its demos.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from loops.choosing import candidates
from loops.model import MASK, Output, TinyDenoiser
from loops.truth import Truth

TokensHook = Callable[["int | None", Tensor, "Tensor | None"], Tensor]
LogitsHook = Callable[[int, Tensor, Tensor], Tensor]


@dataclass
class DreamModelOutput:
    """What is returned where a dictionary was asked for; `history` holds the canvas after every step."""

    sequences: Tensor
    history: tuple[Tensor, ...] | None


class DreamModel(TinyDenoiser):
    """A model with its sampler as a method, as Dream's remote code has it; it calls itself."""

    truth: Truth

    @torch.no_grad()
    def diffusion_generate(
        self,
        inputs: Tensor,
        attention_mask: Tensor | None = None,
        max_new_tokens: int = 12,
        steps: int = 6,
        temperature: float = 0.0,
        alg: str = "entropy",
        alg_temp: float | None = None,
        eps: float = 1e-3,
        output_history: bool = False,
        return_dict_in_generate: bool = False,
        generation_tokens_hook_func: TokensHook = lambda step, canvas, logits: canvas,
        generation_logits_hook_func: LogitsHook = lambda step, canvas, logits: logits,
    ) -> DreamModelOutput | Tensor:
        """Fill `max_new_tokens` masks behind left-padded `inputs` [B, P].

        `alg` is `origin`, `entropy` or `maskgit_plus`. With `origin` every mask is put down with the same probability,
        whatever the model says, so that a step may put down nothing.
        """
        canvas = functional.pad(inputs, (0, max_new_tokens), value=MASK)
        self.truth.begin(canvas)
        seen: Tensor | str = "full"
        places = None
        if attention_mask is not None and (attention_mask == 0).any():
            attention_mask = functional.pad(attention_mask, (0, max_new_tokens), value=1)
            places = (attention_mask.cumsum(-1) - 1).clamp(min=0)
            seen = (attention_mask[:, None, :, None] * attention_mask[:, None, None, :]).bool()
        times = torch.linspace(1, eps, steps + 1).tolist()
        history = []
        canvas = generation_tokens_hook_func(None, canvas, None)
        for step in range(steps):
            output: Output = self(canvas, seen, places)
            logits = torch.cat((output.logits[:, :1], output.logits[:, :-1]), dim=1)
            logits = generation_logits_hook_func(step, canvas, logits)
            share = 1 - times[step + 1] / times[step] if step < steps - 1 else 1.0
            tokens = candidates(logits, temperature)
            chosen = self._chosen(canvas, logits, tokens, share, alg, alg_temp)
            self.truth.step(canvas, chosen, tokens)
            canvas[chosen] = tokens[chosen]
            canvas = generation_tokens_hook_func(step, canvas, logits)
            history.append(canvas.clone())
        if return_dict_in_generate:
            return DreamModelOutput(canvas, tuple(history) if output_history else None)
        return canvas

    @staticmethod
    def _chosen(
        canvas: Tensor, logits: Tensor, tokens: Tensor, share: float, alg: str, alg_temp: float | None
    ) -> Tensor:
        masks = canvas == MASK
        if alg == "origin":
            return masks & (torch.rand(canvas.shape) < share)
        probabilities = logits.softmax(-1)
        if alg == "entropy":
            confidence = (probabilities * torch.log(probabilities + 1e-10)).sum(-1)
        else:
            confidence = probabilities.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        confidence = confidence.masked_fill(~masks, -torch.inf)
        # One number for the whole batch, from the mean of its rows.
        count = int(masks.sum() / len(canvas) * share)
        chosen = torch.zeros_like(masks)
        if count == 0:
            return chosen
        if alg_temp:
            places = torch.multinomial((confidence / alg_temp).softmax(-1), count)
        else:
            places = torch.topk(confidence, count).indices
        return chosen.scatter_(1, places, True)
