"""Runs made by hand, for the texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from difftrace.core.recording import Baseline, ModelIdentity
from difftrace.core.run import Run
from difftrace.core.trajectory import Trajectory

MASK = 999

Recorded = Callable[..., Baseline]


def one_by_one(tokens: Sequence[int], prompt: Sequence[int] = (1, 2)) -> Trajectory:
    """A run that commits `tokens` from left to right, one a step."""
    count, start = len(tokens), len(prompt)
    return Trajectory(
        prompt=list(prompt),
        initial=[*prompt, *[MASK] * count],
        steps=list(range(count)),
        positions=list(range(start, start + count)),
        tokens=list(tokens),
        num_steps=count,
    )


@pytest.fixture
def recorded() -> Recorded:
    """Make a recording of one left-to-right run from its tokens."""

    def make(
        tokens: Sequence[int],
        text: str | None = None,
        pieces: Mapping[int, str] | None = None,
        prompt: Sequence[int] = (1, 2),
        model: ModelIdentity | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Baseline:
        run = Run(
            (one_by_one(tokens, prompt),),
            texts=None if text is None else (text,),
            model=model,
            environment=dict(environment or {}),
            pieces=pieces or {},
        )
        return run.to_baseline(None)

    return make
