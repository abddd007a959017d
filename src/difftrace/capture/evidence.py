"""Evidence of a captured run: what the model said at the positions that turned out to be committed.

What a foreign loop made of that is not seen: guidance, noise, its ranking. So scores are recorded as known only where
every committed token is the model's own best and no default generator moved, and confidences only where, moreover, the
adapter names the ranking and every step of the run agrees with it. Elsewhere they are NaN, from which nothing is
concluded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from difftrace.capture.said import Said
from difftrace.capture.scores import Scores
from difftrace.capture.tape import Call
from difftrace.core.evidence import REJECTED, Evidence, clearly_above
from difftrace.core.trajectory import Trajectory

# Odd, so that no digest of the unconditional rows is lost in the sum.
_UNCONDITIONAL = np.int64(0x1E3779B97F4A7C15)


@dataclass(frozen=True)
class Seen:
    """What the run's calls said.

    Attributes:
        scores: of every call.
        calls: every call.
        steps: index of the call that each step decided on.
        mask_id: what a candidate holds; None where the one position behind each window is.
        guided: whether the calls scored every row twice, conditional rows first.
        by_probability: whether the loop, where it draws no random numbers, ranks by the probability of the best token.
    """

    scores: Scores
    calls: Sequence[Call]
    steps: Sequence[int]
    mask_id: int | None
    guided: bool
    by_probability: bool


def evidences_of(seen: Seen, trajectories: Sequence[Trajectory]) -> tuple[Evidence, ...] | None:
    """Return the evidence of each row, None where a commit is at no candidate of its step."""
    rows = [_candidates(seen, row, trajectory.length) for row, trajectory in enumerate(trajectories)]
    found = []
    for trajectory, candidates in zip(trajectories, rows, strict=True):
        keys = trajectory.steps.astype(np.int64) * trajectory.length + trajectory.positions
        if not np.isin(keys, candidates.keys).all():
            return None
        found.append(_evidence(seen, candidates, keys, trajectory))
    drawn = bool(found[0].noise_digests.any())
    if seen.mask_id is None and len(found) > 1:
        pairs = list(zip(found, trajectories, strict=True))
        ended = [_ended(one, own) for one, own in pairs]
        found = [_unscored(one, where) for one, where in zip(found, ended, strict=True)]
    else:
        ended = [np.zeros(own.num_events, dtype=bool) for own in trajectories]
    chosen = all(
        (padding | (one.top_tokens == own.tokens)).all()
        for one, own, padding in zip(found, trajectories, ended, strict=True)
    )
    if drawn or seen.guided or not chosen:
        return tuple(_without(one, "top_scores", "runner_up_scores", *_RANKING) for one in found)
    if not (seen.by_probability and all(map(_ranked, found, trajectories))):
        return tuple(_without(one, *_RANKING) for one in found)
    return tuple(found)


_RANKING = ("confidences", "rejected_confidences")


@dataclass(frozen=True)
class _Candidates:
    """One row's masks at its steps: their keys (step · L + position), ascending, and where the scores hold them."""

    row: int
    keys: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]


def _candidates(seen: Seen, row: int, length: int) -> _Candidates:
    if seen.mask_id is None:
        behind = np.array([seen.calls[index].offset + seen.calls[index].ids.shape[1] for index in seen.steps])
        # What lies behind the end of an output that was cut short is on no canvas.
        steps = np.flatnonzero(behind < length)
        return _Candidates(row, steps * length + behind[steps], np.array(seen.steps, dtype=np.int64)[steps])
    widths = np.array([call.ids.shape[1] for call in seen.calls])
    begins = np.cumsum(widths) - widths
    found = np.flatnonzero(np.concatenate([call.ids[row] for call in seen.calls]) == seen.mask_id)
    call_of = np.repeat(np.arange(widths.size), widths)[found]
    step_of = np.full(widths.size, -1, dtype=np.int64)
    step_of[list(seen.steps)] = np.arange(len(seen.steps))
    offsets = np.array([call.offset for call in seen.calls], dtype=np.int64)
    keys = step_of[call_of] * length + offsets[call_of] + found - begins[call_of]
    places = np.flatnonzero(step_of[call_of] >= 0)
    return _Candidates(row, keys[places], places)


def _evidence(seen: Seen, candidates: _Candidates, keys: npt.NDArray[np.int64], trajectory: Trajectory) -> Evidence:
    said = seen.scores.rows[candidates.row]
    chosen = np.searchsorted(candidates.keys, keys)
    events = candidates.places[chosen]
    committed = np.zeros(candidates.keys.size, dtype=bool)
    committed[chosen] = True
    # What is drawn between a step's call and the next one's is the step's.
    states = seen.scores.noise[[*seen.steps, len(seen.calls)]]
    return Evidence(
        top_tokens=said.top_tokens[events],
        top_scores=said.top_scores[events],
        runner_up_tokens=said.runner_up_tokens[events],
        runner_up_scores=said.runner_up_scores[events],
        confidences=said.confidences[events],
        noise_digests=np.where(states[:-1] == states[1:], 0, states[:-1]),
        **_step_columns(seen, candidates, committed, said, trajectory),
        **_logits_columns(seen, candidates.row),
    )


def _step_columns(
    seen: Seen, candidates: _Candidates, committed: npt.NDArray[np.bool_], said: Said, trajectory: Trajectory
) -> dict[str, Any]:
    """Return what each of T steps chose among; equally confident candidates are listed from left to right."""
    steps, length = len(seen.steps), trajectory.length
    step_of = candidates.keys // length
    confidence = said.confidences[candidates.places]
    counts = np.bincount(step_of, minlength=steps)
    others = np.flatnonzero(~committed)
    ranked = others[np.lexsort((-confidence[others], step_of[others]))]
    rejected = np.bincount(step_of[others], minlength=steps)
    rank = np.arange(ranked.size) - np.repeat(np.cumsum(rejected) - rejected, rejected)
    best, at = ranked[rank < REJECTED], rank[rank < REJECTED]
    positions = np.full((steps, REJECTED), -1, dtype=np.int32)
    tokens, confidences = positions.copy(), np.full((steps, REJECTED), np.nan, dtype=np.float32)
    positions[step_of[best], at] = candidates.keys[best] % length
    tokens[step_of[best], at] = said.top_tokens[candidates.places[best]]
    confidences[step_of[best], at] = confidence[best]
    # The least confident commit of each step; steps without one have no tie.
    worst = np.full(steps, np.inf, dtype=np.float32)
    np.minimum.at(worst, step_of[committed], confidence[committed])
    tied = others[confidence[others] == worst[step_of[others]]]
    return {
        "candidates": counts.astype(np.int32),
        "rejected_positions": positions,
        "rejected_tokens": tokens,
        "rejected_confidences": confidences,
        "ties": np.bincount(step_of[tied], minlength=steps).astype(np.int32),
    }


def _logits_columns(seen: Seen, row: int) -> dict[str, Any]:
    said, steps = seen.scores.rows[row], np.array(seen.steps)
    columns = {name: getattr(said, name)[steps] for name in ("non_finite", "logits_digests", "sketches", "sketched")}
    if seen.guided:
        other = seen.scores.rows[row + len(seen.scores.rows) // 2]
        columns["non_finite"] = columns["non_finite"] + other.non_finite[steps]
        with np.errstate(over="ignore"):
            columns["logits_digests"] = columns["logits_digests"] + other.logits_digests[steps] * _UNCONDITIONAL
    return columns


def _ended(evidence: Evidence, trajectory: Trajectory) -> npt.NDArray[np.bool_]:
    """Say which events fill up a row of a batch that has ended: the last ones, all of one token that was not the
    model's choice."""
    tokens = trajectory.tokens
    other = np.flatnonzero(tokens != tokens[-1]) if tokens.size else np.zeros(0, dtype=np.int64)
    behind = np.arange(tokens.size) > (other[-1] if other.size else -1)
    padding: npt.NDArray[np.bool_] = behind & (evidence.top_tokens != tokens)
    return padding


def _unscored(evidence: Evidence, where: npt.NDArray[np.bool_]) -> Evidence:
    """Return `evidence` with the scores of the events `where` not known."""
    columns: dict[str, Any] = {
        name: np.where(where, np.float32(np.nan), getattr(evidence, name))
        for name in ("top_scores", "runner_up_scores", "confidences")
    }
    return replace(evidence, **columns)


def _without(evidence: Evidence, *unknown: str) -> Evidence:
    """Return `evidence` with these columns not known, and no ties of what is not known."""
    columns: dict[str, Any] = {name: np.full_like(getattr(evidence, name), np.nan) for name in unknown}
    return replace(evidence, ties=np.zeros_like(evidence.ties), **columns)


def _ranked(evidence: Evidence, trajectory: Trajectory) -> bool:
    """Say whether every step committed candidates of the highest confidence."""
    worst = np.full(evidence.num_steps, np.inf)
    np.minimum.at(worst, trajectory.steps, evidence.confidences)
    best = np.where(evidence.rejected_positions[:, 0] >= 0, evidence.rejected_confidences[:, 0], -np.inf)
    return not clearly_above(best, worst).any()
