"""The random numbers of single steps, as a run that got there would have drawn them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from difftrace.core.errors import RunError
from difftrace.sampling.arguments import SamplerArguments
from difftrace.sampling.noise import Noise, UpstreamNoise, noise_for


def any_step_noise(
    arguments: SamplerArguments, canvas: Tensor, attention_mask: Tensor | None, vocabulary: int
) -> Noise:
    """Return a run's noise on `canvas` [B, L], like `noise_for`, of which every step can be asked in any order.

    Raises:
        RunError: the run draws from torch's global generator, whose state at its start nobody knows.
    """
    noise = noise_for(arguments, canvas, attention_mask)
    if not isinstance(noise, UpstreamNoise):
        return noise
    if noise.generator is None:
        if not arguments.draws:
            return noise
        raise RunError(
            "a run with noise='upstream' and no seed draws from torch's global generator, so that no step's random "
            "numbers can be had again: give a seed"
        )
    return _Rewound(noise, noise.generator, arguments, vocabulary)


@dataclass(frozen=True)
class NoiseOfSteps:
    """The noise of several steps as one batch: the rows [B] of the first step, then those of the next.

    Attributes:
        noise: of one canvas [B, L], whose steps can be asked in any order.
        steps: S step numbers. They count, whatever step is asked for.
    """

    noise: Noise
    steps: Sequence[int]

    def for_tokens(self, step: int, vocabulary: int) -> Tensor:
        """Return [S * B, L, vocabulary] in float64."""
        return torch.cat([self.noise.for_tokens(one, vocabulary) for one in self.steps])

    def for_positions(self, step: int) -> Tensor:
        """Return [S * B, L]."""
        return torch.cat([self.noise.for_positions(one) for one in self.steps])


@dataclass(frozen=True)
class _Start:
    """The generator's states before a step's numbers for tokens and before those for positions."""

    tokens: Tensor
    positions: Tensor


@dataclass(frozen=True)
class _Rewound:
    """Draws of a generator that is put to where a run would have it.

    Where a step begins depends on all draws before it: those are drawn once, without a model, and only the generator's
    states are kept.
    """

    noise: UpstreamNoise
    generator: torch.Generator
    arguments: SamplerArguments
    vocabulary: int
    starts: list[_Start] = field(default_factory=list)

    def for_tokens(self, step: int, vocabulary: int) -> Tensor:
        self.generator.set_state(self._start(step).tokens)
        return self.noise.for_tokens(step, vocabulary)

    def for_positions(self, step: int) -> Tensor:
        self.generator.set_state(self._start(step).positions)
        return self.noise.for_positions(step)

    def _start(self, step: int) -> _Start:
        while len(self.starts) <= step:
            self._draw_next()
        return self.starts[step]

    def _draw_next(self) -> None:
        """Draw what the sampler draws up to the positions of the first step that is not known."""
        step = len(self.starts)
        if step > 0:
            self.generator.set_state(self.starts[-1].positions)
            if self.arguments.remasking == "random":
                self.noise.for_positions(step - 1)
        tokens = self.generator.get_state()
        if self.arguments.temperature > 0:
            self.noise.for_tokens(step, self.vocabulary)
        self.starts.append(_Start(tokens, self.generator.get_state()))
