"""Recordings of any size, with evidence, as a sampler with a few hundred likely tokens would leave them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from difftrace.core.comparison import compare
from difftrace.core.evidence import DIGEST_LANES, PROJECTIONS, REJECTED, Evidence
from difftrace.core.recording import Baseline, ModelIdentity, SamplerIdentity, SequenceRecord, TestId
from difftrace.core.trajectory import Trajectory
from difftrace.reports.explorer import Entry, Parting, Verdict
from difftrace.reports.failure import divergence_text

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


@pytest.fixture(scope="session")
def full(recording: Callable[..., Baseline]) -> Callable[[int], Entry]:
    """Return a check of 512 steps and positions that parts early, with all that a report says of it."""

    def make(seed: int) -> Entry:
        sizes = {"length": 512, "steps": 512, "seed": seed}
        prompt = _words(np.random.default_rng(seed).integers(0, WORDS, 200).tolist())
        runs = [
            recording(f"test_{seed}", prompt_text=prompt, environment=_environment(torch), parts_at=parts_at, **sizes)
            for torch, parts_at in (("2.13.0", None), ("2.14.0", 3))
        ]
        golden, observed = (_with_text(run) for run in runs)
        found = compare(golden.sequences[0].trajectory, observed.sequences[0].trajectory)
        assert found is not None
        text = divergence_text(golden, observed, found, subject="NUMERIC", where=["at x"], reasons=["why"], advice=())
        return Entry(
            test=f"test_{seed}",
            status="failed",
            outcome="diverged",
            divergence_class="NUMERIC",
            parting=Parting(found.kind, 0, found.step, found.position, "a", "b"),
            verdict=Verdict("the computation differs", text=tuple(text.splitlines())),
            golden=golden,
            observed=observed,
        )

    return make


def _with_text(run: Baseline) -> Baseline:
    """Return a run whose text is that of its tokens, as it is of a real one."""
    (record,) = run.sequences
    tokens = record.trajectory.final[record.trajectory.prompt.size :].tolist()
    return replace(run, sequences=(replace(record, text="".join(run.pieces[token] for token in tokens)),))


def _words(numbers: list[int]) -> str:
    return " ".join(f"word{number}" for number in numbers)


def _environment(torch: str) -> dict[str, Any]:
    """Return as many fields as a fingerprint has, most of them switches."""
    named = {
        "torch": torch,
        "torch_git": hashlib.sha1(torch.encode()).hexdigest(),
        "canary": f"sha256:{hashlib.sha256(torch.encode()).hexdigest()}",
        "device": "AMD Instinct MI300X",
        "device_architecture": "gfx942:sramecc+:xnack-",
        "driver": "6.10.5",
        "hip": "6.4.43484",
        "blas": "OpenBLAS 0.3.27",
        "threads": 16,
        "dtype": "bfloat16",
    }
    return {**named, **{f"switch_{index}": index % 2 == 0 for index in range(28)}}


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
