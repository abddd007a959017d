"""Some steps of a run instead of all: which, and what share of faults they would show."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import comb
from typing import Final

# In percent: how sure it is to be that a fault is caught.
CONFIDENCE: Final = 95


@dataclass(frozen=True)
class StepSample:
    """Steps chosen at random, each set of as many being equally likely.

    Attributes:
        seed: that they were chosen by.
        steps: the steps, ascending; at least one.
        total: number of steps that they were chosen from.
    """

    seed: int
    steps: tuple[int, ...]
    total: int

    @property
    def caught_from(self) -> int:
        """In how many of the `total` steps a fault must show to be caught with `CONFIDENCE`."""
        return caught_from(self.total, len(self.steps))

    @property
    def share(self) -> float:
        """The same as a share of all steps."""
        return self.caught_from / self.total

    @property
    def single(self) -> float:
        """The probability that a fault is caught that shows in one step only."""
        return len(self.steps) / self.total

    def __str__(self) -> str:
        if len(self.steps) == self.total:
            return f"all {self.total} steps"
        return (
            f"{len(self.steps)} of {self.total} steps at random (seed {self.seed}): a fault that shows in at least "
            f"{self.caught_from} of {self.total} steps is caught with {CONFIDENCE} %, "
            f"one that shows in a single step with {100 * self.single:.3g} %"
        )


def choose_steps(total: int, count: int, seed: int) -> StepSample:
    """Choose `count` of the steps 0 to `total` - 1, all of them where there are no more; both are at least 1.

    The steps whose SHA-256 with the seed comes first: the same on every platform and version, for ever.
    """
    ranked = sorted(range(total), key=lambda step: hashlib.sha256(f"{seed}:{step}".encode("ascii")).digest())
    return StepSample(seed, tuple(sorted(ranked[:count])), total)


def caught_from(total: int, count: int, confidence: int = CONFIDENCE) -> int:
    """Return the smallest m such that `count` random steps of `total` hit one of m with `confidence` (percent).

    They miss all of m with the hypergeometric probability C(total - m, count) / C(total, count).
    """
    enough = (100 - confidence) * comb(total, count)
    return next(m for m in range(total + 1) if 100 * comb(total - m, count) <= enough)
