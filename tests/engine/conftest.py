from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from difftrace.core.trajectory import TrajectoryCapture, TrajectoryRecord
from difftrace.engine import DiffTraceEngine
from difftrace.utils.config import DiffTraceConfig, IOMode

MASK = 999


@pytest.fixture
def config(tmp_path: Path) -> DiffTraceConfig:
    made = DiffTraceConfig()
    made.store.base_path = tmp_path / "kept"
    made.io.mode = IOMode.SYNC
    return made


@pytest.fixture
def engine(config: DiffTraceConfig) -> Iterator[DiffTraceEngine]:
    with DiffTraceEngine(config) as opened:
        yield opened


@pytest.fixture
def capture_request(config: DiffTraceConfig) -> Callable[..., TrajectoryRecord]:
    """Capture a run of two positions a step, after a prompt of 4; `wrong` changes the output at that position."""

    def run(request_id: str, seed: int = 0, wrong: int | None = None, output: bool = True, **given: Any):
        rng = np.random.default_rng(seed)
        prompt = rng.integers(0, 900, 4)
        canvas = np.concatenate((prompt, np.full(12, MASK)))
        order = rng.permutation(12) + 4
        capture = TrajectoryCapture(config.capture)
        capture.begin_trajectory(
            request_id=request_id, prompt_tokens=prompt, num_diffusion_steps=6, sequence_length=16, **given
        )
        for step in range(6):
            positions, tokens = order[2 * step : 2 * step + 2], rng.integers(0, 900, 2)
            canvas[positions] = tokens
            capture.capture_step(
                step_index=step, unmasked_positions=positions, sampled_tokens=tokens, mask_state=canvas == MASK
            )
        if wrong is not None:
            canvas[wrong] += 1
        return capture.end_trajectory(generated_tokens=canvas if output else None)

    return run
