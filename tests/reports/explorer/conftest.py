"""Recordings of any size, with evidence, as a sampler with a few hundred likely tokens would leave them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from difftrace.core.evidence import DIGEST_LANES, PROJECTIONS, REJECTED, Evidence
from difftrace.core.recording import Baseline, ModelIdentity, SamplerIdentity, SequenceRecord, TestId
from difftrace.core.trajectory import Trajectory

MASK = 126336
PROMPT = (11, 12, 13)
WORDS = 4000


def _recording(
    name: str = "test_one",
    *,
    length: int = 16,
    steps: int = 8,
    seed: int = 0,
    parts_at: int | None = None,
    evidence: bool = True,
    pieces: dict[int, str] | None = None,
    text: str | None = "the text",
    prompt_text: str | None = "the prompt",
    environment: dict[str, Any] | None = None,
) -> Baseline:
    """Return a run that commits `length` / `steps` positions a step, from `parts_at` on others than without it."""
    rng = np.random.default_rng(seed)
    per_step = length // steps
    order, tokens = rng.permutation(length), (rng.zipf(1.3, length) - 1) % WORDS + 100
    if parts_at is not None:
        agreed = parts_at * per_step
        other = rng = np.random.default_rng(seed + 1_000_003)
        # The best of the rest takes another token at once, so that it is this step that parts.
        tokens[order[agreed]] += 1
        order[agreed + 1 :] = other.permutation(order[agreed + 1 :])
        tokens[order[agreed + 1 :]] = (other.zipf(1.3, length - agreed - 1) - 1) % WORDS + 100
    start = len(PROMPT)
    trajectory = Trajectory(
        prompt=PROMPT,
        initial=[*PROMPT, *[MASK] * length],
        steps=np.repeat(np.arange(steps), per_step),
        positions=order + start,
        tokens=tokens[order],
        num_steps=steps,
    )
    events = np.lexsort((order, np.repeat(np.arange(steps), per_step)))
    record = SequenceRecord(
        trajectory, text, prompt_text, _evidence(order, tokens, events, steps, start, rng) if evidence else None
    )
    return Baseline(
        test=TestId("test_made.py", name, None),
        model=ModelIdentity("made", None, None, None, None, WORDS + 200_000, MASK),
        sampler=SamplerIdentity("llada", 1, {"steps": steps, "gen_length": length}),
        environment=environment or {"torch": "2.13.0", "dtype": "float32", "threads": 2},
        pieces=pieces
        if pieces is not None
        else {token: f" word{token}" for token in sorted({*tokens.tolist(), *PROMPT})},
        sequences=(record,),
    )


@pytest.fixture(scope="session")
def recording() -> Callable[..., Baseline]:
    return _recording


def _evidence(order: Any, tokens: Any, events: Any, steps: int, start: int, rng: np.random.Generator) -> Evidence:
    count = order.size
    per_step = count // steps
    confidences = -rng.exponential(0.3, count).astype(np.float32)
    margins = rng.exponential(2.0, count).astype(np.float32)
    rejected = [order[(step + 1) * per_step :][:REJECTED] for step in range(steps)]
    fill = [REJECTED - len(one) for one in rejected]
    values = [-np.sort(rng.exponential(0.4, len(one))) for one in rejected]
    return Evidence(
        top_tokens=tokens[order][events],
        top_scores=20 + margins,
        runner_up_tokens=tokens[order][events] + 5000,
        runner_up_scores=np.full(count, 20, dtype=np.float32),
        confidences=confidences,
        candidates=[count - step * per_step for step in range(steps)],
        rejected_positions=[[*(one + start), *[-1] * more] for one, more in zip(rejected, fill, strict=True)],
        rejected_tokens=[[*tokens[one], *[-1] * more] for one, more in zip(rejected, fill, strict=True)],
        rejected_confidences=np.array(
            [[*one, *[np.nan] * more] for one, more in zip(values, fill, strict=True)], dtype=np.float32
        ),
        ties=np.zeros(steps, dtype=int),
        non_finite=np.zeros(steps, dtype=int),
        logits_digests=np.ones((steps, DIGEST_LANES), dtype=int),
        sketches=np.zeros((steps, PROJECTIONS), dtype=np.float32),
        sketched=np.ones(steps, dtype=int),
        noise_digests=np.zeros(steps, dtype=int),
    )
