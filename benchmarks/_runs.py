"""Denoising runs as plain arrays, kept apart from whatever stores them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from difftrace.core.trajectory import Trajectory

VOCABULARY, MASK = 126464, 126336

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Runs:
    """N runs of T steps that commit K tokens each to the L = T K positions after a prompt of P.

    Attributes:
        prompts: [N, P].
        positions: [N, T, K], of the whole canvas, ascending within a step.
        tokens: [N, T, K].
        outputs: the final canvases [N, P + L], made by a loop over the steps or by the model's sampler, not by the code
            under test.
        mask: the mask's token.
    """

    prompts: Ints
    positions: Ints
    tokens: Ints
    outputs: Ints
    mask: int = MASK

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def steps(self) -> int:
        """Steps of a run."""
        return self.positions.shape[1]

    @property
    def length(self) -> int:
        """Positions of a canvas."""
        return self.outputs.shape[1]

    def first(self, number: int) -> Runs:
        """Return so many of them, or all."""
        return Runs(
            self.prompts[:number], self.positions[:number], self.tokens[:number], self.outputs[:number], self.mask
        )

    def initial(self, run: int) -> Ints:
        """Return the first canvas of a run."""
        generated = self.length - self.prompts.shape[1]
        return np.concatenate((self.prompts[run], np.full(generated, self.mask)))

    def masks(self, run: int) -> Iterator[npt.NDArray[np.bool_]]:
        """Yield the mask [P + L] after each step of a run."""
        canvas = self.initial(run)
        for positions, tokens in zip(self.positions[run], self.tokens[run], strict=True):
            canvas[positions] = tokens
            yield canvas == self.mask

    def trajectory(self, run: int) -> Trajectory:
        """Return a run as the library has it."""
        count = self.positions.shape[2]
        return Trajectory(
            prompt=self.prompts[run],
            initial=self.initial(run),
            steps=np.repeat(np.arange(self.steps), count),
            positions=self.positions[run].reshape(-1),
            tokens=self.tokens[run].reshape(-1),
            num_steps=self.steps,
        )


def random_runs(count: int, *, prompt: int = 32, generated: int = 128, steps: int = 64, seed: int = 0) -> Runs:
    """Return `count` runs in which every position is committed once, in random order."""
    rng = np.random.default_rng(seed)
    # Below the mask's token, which no step commits.
    prompts = rng.integers(0, MASK, (count, prompt))
    tokens = rng.integers(0, MASK, (count, steps, generated // steps))
    order = np.argsort(rng.random((count, generated)), axis=1).reshape(tokens.shape) + prompt
    positions = np.sort(order, axis=2)
    outputs = np.concatenate((prompts, np.full((count, generated), MASK)), axis=1)
    for run in range(count):
        for step in range(steps):
            for position, token in zip(positions[run, step].tolist(), tokens[run, step].tolist(), strict=True):
                outputs[run, position] = token
    return Runs(prompts, positions, tokens, outputs)
