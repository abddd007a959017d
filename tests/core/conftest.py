from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from difftrace.core.baseline import (
    Baseline,
    ModelIdentity,
    SamplerIdentity,
    SequenceRecord,
    TestId,
)
from difftrace.core.trajectory import Trajectory

VOCABULARY = 126464
MASK = 126336


def _random_trajectory(
    length: int = 128, steps: int = 64, *, prompt: int = 0, padding: int = 0, seed: int = 0
) -> Trajectory:
    """`length` masked positions after padding and prompt, each committed once at a uniformly drawn step."""
    rng = np.random.default_rng(seed)
    prompt_ids = rng.integers(0, VOCABULARY, prompt)
    canvas = padding + prompt + length
    return Trajectory(
        prompt=prompt_ids,
        initial=np.concatenate((np.full(padding, 126081), prompt_ids, np.full(length, MASK))),
        steps=rng.integers(0, steps, length),
        positions=np.arange(padding + prompt, canvas),
        tokens=rng.integers(0, VOCABULARY, length),
        num_steps=steps,
        padding=padding,
        attention_mask=np.arange(canvas) >= padding,
    )


@pytest.fixture(scope="session")
def random_trajectory() -> Callable[..., Trajectory]:
    return _random_trajectory


@pytest.fixture(scope="session")
def rewriting_trajectory() -> Trajectory:
    """DiffusionGemma's way: a random canvas of 256, nine positions in ten rewritten at each of 48 steps."""
    rng = np.random.default_rng(1)
    positions = [np.sort(rng.choice(256, 230, replace=False)) for _ in range(48)]
    return Trajectory(
        prompt=[2, 7, 9],
        initial=rng.integers(0, 262144, 256),
        steps=np.repeat(np.arange(48), 230),
        positions=np.concatenate(positions),
        tokens=rng.integers(0, 262144, 48 * 230),
        num_steps=48,
    )


@pytest.fixture
def baseline() -> Baseline:
    return Baseline(
        test=TestId("test_sum.py", "TestSum::test_small[3-\u00e9]", None),
        model=ModelIdentity(
            name="GSAI-ML/LLaDA-8B-Instruct",
            revision="0" * 40,
            weights=f"sha256:{'a' * 64}",
            config=f"sha256:{'b' * 64}",
            tokenizer=None,
            vocab_size=VOCABULARY,
            mask_token_id=MASK,
        ),
        sampler=SamplerIdentity("llada", 1, {"steps": 8, "temperature": 0.1, "remasking": "low_confidence"}),
        environment={"device": "cpu", "threads": 2, "flags": ["avx2", "fma"]},
        pieces={126081: "<|endoftext|>", 5: "4", 17: " \x1b[31m"},
        sequences=(
            SequenceRecord(_random_trajectory(16, 8, prompt=4, padding=3), "42", "12 + 30 ="),
            SequenceRecord(_random_trajectory(16, 8, prompt=7, seed=2), None, None),
        ),
    )
