"""Where two runs first part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from difftrace.core.trajectory import Ints, Trajectory

Keys = npt.NDArray[np.int64]
Kind = Literal["sequences", "prompt", "initial", "decision", "length"]


@dataclass(frozen=True)
class Divergence:
    """The first difference between a golden run and an observed one.

    Attributes:
        kind: what differs. "sequences": their number; "prompt": prompt, padding or attention mask; "initial":
            the first canvas; "decision": a committed token; "length": only the number of steps, all common
            events being equal.
        sequence: index of the sequence; for "sequences" the first that only one side has.
        step: for "decision" the step; for "length" the smaller number of steps; otherwise None.
        position: for "decision" and "initial" the canvas position, for "prompt" the index in the prompt (None
            if only padding or attention mask differ); otherwise None.
        golden: token the golden has there (for "decision": committed there at that step); None if it has
            none.
        observed: likewise of the observed run.
        agreed_steps: whole steps that agree before the difference.
        agreed_events: events that agree before the difference, in canonical order.
    """

    kind: Kind
    sequence: int
    step: int | None
    position: int | None
    golden: int | None
    observed: int | None
    agreed_steps: int
    agreed_events: int


def compare(golden: Trajectory, observed: Trajectory) -> Divergence | None:
    """Return the first difference between two sequences' runs, or None if they are equal."""
    return _compare(golden, observed, 0)


def compare_sequences(golden: Sequence[Trajectory], observed: Sequence[Trajectory]) -> Divergence | None:
    """Return the first difference between two batches, or None if they are equal.

    The earliest step wins, then the lowest sequence; what differs before any step (prompt, first canvas)
    precedes step 0.
    """
    if len(golden) != len(observed):
        return Divergence("sequences", min(len(golden), len(observed)), None, None, None, None, 0, 0)
    found = (_compare(one, other, index) for index, (one, other) in enumerate(zip(golden, observed, strict=True)))
    differences = [divergence for divergence in found if divergence is not None]
    return min(differences, key=lambda d: -1 if d.step is None else d.step, default=None)


def compare_step(golden: Trajectory, step: int, positions: Ints, tokens: Ints, sequence: int) -> Divergence | None:
    """Return where what a step committed, `tokens` at `positions`, differs from the golden step; None if it does not.

    The step was taken on the golden canvas, so that all before it agrees. `positions` may come in any order.
    """
    order = positions.argsort(kind="stable")
    start, end = (int(bound) for bound in golden.steps.searchsorted((step, step + 1)))
    recorded = golden.positions[start:end].astype(np.int64), golden.tokens[start:end]
    found = _first_event(recorded, (positions[order].astype(np.int64), tokens[order]))
    if found is None:
        return None
    return Divergence("decision", sequence, step, found.key, found.golden, found.observed, step, start + found.index)


def _compare(golden: Trajectory, observed: Trajectory, sequence: int) -> Divergence | None:
    if golden == observed:
        return None
    index = first_difference(golden.prompt, observed.prompt)
    if index is not None or not _same_frame(golden, observed):
        return _before_any_step("prompt", sequence, index, golden.prompt, observed.prompt)
    index = first_difference(golden.initial, observed.initial)
    if index is not None:
        return _before_any_step("initial", sequence, index, golden.initial, observed.initial)
    return _compare_events(golden, observed, sequence)


def _same_frame(golden: Trajectory, observed: Trajectory) -> bool:
    if golden.padding != observed.padding:
        return False
    if golden.attention_mask is None or observed.attention_mask is None:
        return golden.attention_mask is observed.attention_mask
    return np.array_equal(golden.attention_mask, observed.attention_mask)


def _before_any_step(
    kind: Literal["prompt", "initial"], sequence: int, index: int | None, golden: Ints, observed: Ints
) -> Divergence:
    return Divergence(kind, sequence, None, index, _at(golden, index), _at(observed, index), 0, 0)


def _compare_events(golden: Trajectory, observed: Trajectory, sequence: int) -> Divergence | None:
    common = min(golden.num_steps, observed.num_steps)
    columns = []
    for trajectory in (golden, observed):
        events = int(trajectory.steps.searchsorted(common))
        keys = trajectory.steps[:events].astype(np.int64) * trajectory.length + trajectory.positions[:events]
        columns.append((keys, trajectory.tokens[:events]))
    found = _first_event(*columns)
    if found is not None:
        step, position = divmod(found.key, golden.length)
        return Divergence("decision", sequence, step, position, found.golden, found.observed, step, found.index)
    if golden.num_steps != observed.num_steps:
        return Divergence("length", sequence, common, None, None, None, common, columns[0][0].size)
    return None


@dataclass(frozen=True)
class _Event:
    """The first event that two sides do not share: how many they do, its key, and each side's token or None."""

    index: int
    key: int
    golden: int | None
    observed: int | None


def _first_event(golden: tuple[Keys, Ints], observed: tuple[Keys, Ints]) -> _Event | None:
    """Compare events, each side's keys ascending."""
    (golden_keys, golden_tokens), (observed_keys, observed_tokens) = golden, observed
    shared = min(golden_keys.size, observed_keys.size)
    differs = (golden_keys[:shared] != observed_keys[:shared]) | (golden_tokens[:shared] != observed_tokens[:shared])
    first = int(differs.argmax()) if differs.any() else shared
    sides = (golden, observed)
    candidates = [int(keys[first]) for keys, _ in sides if first < keys.size]
    if not candidates:
        return None
    key = min(candidates)
    there = [int(tokens[first]) if first < keys.size and int(keys[first]) == key else None for keys, tokens in sides]
    return _Event(first, key, *there)


def first_difference(golden: Ints, observed: Ints) -> int | None:
    """Return the first index at which two columns differ, or one of them ends; None if they are equal."""
    shared = min(golden.size, observed.size)
    differs = golden[:shared] != observed[:shared]
    if differs.any():
        return int(differs.argmax())
    return None if golden.size == observed.size else shared


def _at(column: Ints, index: int | None) -> int | None:
    return int(column[index]) if index is not None and index < column.size else None
