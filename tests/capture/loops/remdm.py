"""The calling pattern of MDLM's cached sampler and of ReMDM, which masks tokens again that it had put down.

The method `_ddpm_caching_update` makes one step. A step that changes nothing hands its scores to the next, which then
makes no forward: there are more steps than forwards. Sources: kuleshov-group/mdlm and kuleshov-group/remdm,
`diffusion.py`; ReMDM is arXiv 2503.00307, with the capped rate of masking again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from loops.model import MASK, TinyDenoiser
from loops.truth import Truth


@dataclass
class Diffusion:
    """A sampler without prompts; `eta` bounds how probably a token is masked again, 0 is MDLM."""

    backbone: TinyDenoiser
    truth: Truth
    eta: float = 0.0

    def forward(self, canvas: Tensor) -> Tensor:
        """Return the probabilities [B, L, V] of what each position holds; what is no mask stays."""
        # The scores are overwritten where the model left them.
        logits = self.backbone(canvas).logits
        logits[..., MASK] = -torch.inf
        kept = torch.nn.functional.one_hot(canvas, logits.shape[-1]).to(logits.dtype)
        return torch.where((canvas == MASK).unsqueeze(-1), logits.softmax(-1), kept)

    def _ddpm_caching_update(
        self, canvas: Tensor, time: float, span: float, probabilities: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Go from `time` to `time - span`; return the probabilities used and the next canvas, a new tensor."""
        if probabilities is None:
            probabilities = self.forward(canvas)
        alpha, alpha_next = 1 - time, 1 - (time - span)
        again = min(self.eta, (1 - alpha_next) / alpha) if alpha > 0 else 0.0
        put_down = (alpha_next - (1 - again) * alpha) / (1 - alpha)
        rate = torch.where(canvas == MASK, put_down, 1 - again).unsqueeze(-1)
        mixed = probabilities * rate
        mixed[..., MASK] = 1 - rate.squeeze(-1)
        noise = -torch.log(torch.rand_like(mixed) + 1e-10)
        return probabilities, (mixed / noise).argmax(-1)

    @torch.no_grad()
    def sample(self, batch: int = 2, length: int = 12, num_steps: int = 10, eps: float = 1e-3) -> Tensor:
        """Return the canvas [B, L]; masks that are left take their likeliest token, by one more forward."""
        canvas = torch.full((batch, length), MASK)
        self.truth.begin(canvas)
        span = (1 - eps) / num_steps
        probabilities: Tensor | None = None
        for step in range(num_steps):
            probabilities, following = self._ddpm_caching_update(canvas, 1 - step * span, span, probabilities)
            self.truth.step(canvas, following != canvas, following)
            if not torch.equal(following, canvas):
                probabilities = None
            canvas = following
        following = self.forward(canvas).argmax(-1)
        self.truth.step(canvas, following != canvas, following)
        return following
