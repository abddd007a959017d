"""Records that several processes agree on: the same number gives the same record."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from difftrace.core.trajectory import Trajectory
from difftrace.store import Record

VOCABULARY = 126464
MASK = 126336
START = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def make_trajectory(number: int = 0, *, length: int = 32, steps: int = 8) -> Trajectory:
    """`length` masks after a prompt of 5, each committed once at a uniformly drawn step."""
    rng = np.random.default_rng(number)
    prompt = rng.integers(0, VOCABULARY, 5)
    return Trajectory(
        prompt=prompt,
        initial=np.concatenate((prompt, np.full(length, MASK))),
        steps=rng.integers(0, steps, length),
        positions=np.arange(5, 5 + length),
        tokens=rng.integers(0, VOCABULARY, length),
        num_steps=steps,
    )


def make_record(number: int = 0, request_id: str | None = None, **changes: Any) -> Record:
    """The record of `number`, one second after the one before."""
    trajectory = make_trajectory(number)
    fields: dict[str, Any] = {
        "request_id": f"request/{number}" if request_id is None else request_id,
        "trajectory": trajectory,
        "output": trajectory.final[5:],
        "model": f"model-{number % 3}",
        "metadata": {"tenant": f"t{number % 2}", "number": number, "cached": number % 4 == 0},
        "created_at": START + timedelta(seconds=number),
    }
    return Record(**{**fields, **changes})
