from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from difftrace.core.baseline import (
    Baseline,
    ModelIdentity,
    SamplerIdentity,
    SequenceRecord,
    TestId,
)
from difftrace.core.evidence import DIGEST_LANES, PROJECTIONS, REJECTED, Evidence
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


def _simulated(
    seed: int = 0,
    *,
    length: int = 16,
    steps: int = 8,
    vocabulary: int = 24,
    noise: float = 0.0,
    noise_seed: int = 1,
    temperature: float = 0.0,
    stream: int = 0,
    spoil: Callable[[int, Any], Any] = lambda step, logits: logits,
    rank: Callable[[int, Any], Any] = lambda step, confidences: confidences,
) -> tuple[Trajectory, Evidence]:
    """A small masked sampler: logits follow from seed and canvas, with normal `noise`, and `spoil` may change them.

    `rank` maps log-confidences to what positions are ranked by and is recorded as their confidence. Token 0 is the
    mask, and never chosen.
    """
    canvas = np.zeros(length, dtype=np.int64)
    columns: dict[str, list[Any]] = {name: [] for name in ("steps", "positions", "tokens")}
    evidence: dict[str, list[Any]] = {name: [] for name in Evidence.__dataclass_fields__}
    for step in range(steps):
        state = [step, zlib.crc32(canvas.tobytes())]
        logits = 3 * np.random.default_rng([seed, *state]).normal(size=(length, vocabulary))
        logits[:, 0] -= 99
        logits += noise * np.random.default_rng([noise_seed, *state]).normal(size=logits.shape)
        logits = spoil(step, logits.astype(np.float32))
        drawn = np.random.default_rng([stream, step]).gumbel(size=logits.shape)
        scores = logits + temperature * drawn
        best = np.argsort(-scores, axis=1, kind="stable")[:, :2]
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        log_chances = np.log(np.take_along_axis(chances, best, axis=1)[:, 0] / chances.sum(axis=1))
        confidences = rank(step, log_chances.astype(np.float32))
        candidates = np.flatnonzero(canvas == 0)
        order = candidates[np.argsort(-confidences[candidates], kind="stable")]
        chosen, rest = np.sort(order[: length // steps]), order[length // steps :]
        listed, empty = rest[:REJECTED], REJECTED - len(rest[:REJECTED])
        seen = logits[candidates]
        signs = np.random.default_rng([seen.size]).choice([-1.0, 1.0], size=(PROJECTIONS, seen.size))
        columns["steps"] += [step] * len(chosen)
        columns["positions"] += chosen.tolist()
        columns["tokens"] += best[chosen, 0].tolist()
        for name, rows in (("top", 0), ("runner_up", 1)):
            evidence[f"{name}_tokens"] += best[chosen, rows].tolist()
            evidence[f"{name}_scores"] += scores[chosen, best[chosen, rows]].tolist()
        evidence["confidences"] += confidences[chosen].tolist()
        evidence["candidates"].append(candidates.size)
        evidence["rejected_positions"].append([*listed, *[-1] * empty])
        evidence["rejected_tokens"].append([*best[listed, 0], *[-1] * empty])
        evidence["rejected_confidences"].append([*confidences[listed], *[np.nan] * empty])
        evidence["ties"].append(int((confidences[rest] == confidences[chosen].min()).sum()))
        evidence["non_finite"].append(int((~np.isfinite(seen)).sum()))
        digest = hashlib.blake2b(seen.tobytes(), digest_size=8 * DIGEST_LANES).digest()
        evidence["logits_digests"].append(np.frombuffer(digest, dtype="<i8"))
        with np.errstate(invalid="ignore"):
            evidence["sketches"].append(signs @ seen.reshape(-1).astype(np.float64))
        evidence["sketched"].append(seen.size)
        evidence["noise_digests"].append(zlib.crc32(drawn.tobytes()) if temperature else 0)
        canvas[chosen] = best[chosen, 0]
    trajectory = Trajectory([], np.zeros(length, dtype=np.int64), **columns, num_steps=steps)
    return trajectory, Evidence(**{name: np.array(values) for name, values in evidence.items()})


@pytest.fixture(scope="session")
def simulated() -> Callable[..., tuple[Trajectory, Evidence]]:
    return _simulated


def _handmade(*steps: dict[str, Any], length: int = 12) -> SequenceRecord:
    """A record of steps made by hand on a canvas of masks 0; digests are equal unless `logits` says otherwise.

    A step has `commits`, each (position, token, score, runner-up, its score, confidence), and `rejected`, each
    (position, token, confidence). `rms` moves its sketch so that two steps differ by the root mean square that their
    `rms` differ by; `top` is the token of highest score where that is not the one committed.
    """
    committed = [(index, *commit) for index, step in enumerate(steps) for commit in step.get("commits", [])]
    numbers, positions, tokens, scores, runners, runner_scores, confidences = zip(*committed, strict=True)
    rejected = [[*step.get("rejected", []), *[(-1, -1, np.nan)] * REJECTED][:REJECTED] for step in steps]
    listed = [len(step.get("commits", [])) + len(step.get("rejected", [])) for step in steps]
    trajectory = Trajectory([], [0] * length, numbers, positions, tokens, len(steps))
    order = np.lexsort((positions, numbers))
    evidence = Evidence(
        top_tokens=np.array([steps[n].get("top", t) for n, t in zip(numbers, tokens, strict=True)])[order],
        top_scores=np.array(scores, dtype=float)[order],
        runner_up_tokens=np.array(runners)[order],
        runner_up_scores=np.array(runner_scores, dtype=float)[order],
        confidences=np.array(confidences, dtype=float)[order],
        candidates=np.array([step.get("candidates", count) for step, count in zip(steps, listed, strict=True)]),
        rejected_positions=np.array([[one[0] for one in row] for row in rejected]),
        rejected_tokens=np.array([[one[1] for one in row] for row in rejected]),
        rejected_confidences=np.array([[one[2] for one in row] for row in rejected], dtype=float),
        ties=np.array([step.get("ties", 0) for step in steps]),
        non_finite=np.array([step.get("non_finite", 0) for step in steps]),
        logits_digests=np.array([[step.get("logits", 1)] * DIGEST_LANES for step in steps]),
        sketches=np.array([[100 * step.get("rms", 0.0)] * PROJECTIONS for step in steps], dtype=float),
        sketched=np.array([step.get("sketched", 10_000) for step in steps]),
        noise_digests=np.array([step.get("noise", 0) for step in steps]),
    )
    return SequenceRecord(trajectory, None, None, evidence)


@pytest.fixture(scope="session")
def handmade() -> Callable[..., SequenceRecord]:
    return _handmade


def _held(*records: SequenceRecord, dtype: str | None = "float32", **fields: Any) -> Baseline:
    """A baseline of `records`, of a model and a sampler that are known unless `fields` says otherwise."""
    given: dict[str, Any] = {
        "test": None,
        "model": ModelIdentity("m", None, f"sha256:{'a' * 64}", f"sha256:{'b' * 64}", f"sha256:{'c' * 64}", 999, 0),
        "sampler": SamplerIdentity("llada", 1, {"steps": 8, "seed": 0}),
        "environment": {} if dtype is None else {"dtype": dtype},
        "pieces": {},
        "sequences": records,
    }
    return Baseline(**given | fields)


@pytest.fixture(scope="session")
def held() -> Callable[..., Baseline]:
    return _held
