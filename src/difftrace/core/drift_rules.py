"""Rules on sequences of which no common decision differs: RNG, LOGIC, NUMERIC, LENGTH and DRIFT, in this order.

LOGIC are other candidates, confidences that differ by more than the budget and than the logits can have moved them, and
a confidence that is 0 in one run only. LENGTH precedes DRIFT, unlike in the list of classes: decisions that one run
lacks are no equal decisions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from difftrace.core.budgets import Tolerance
from difftrace.core.classes import Finding
from difftrace.core.decision_rules import NO_BUDGET, exceeding, excess_finding
from difftrace.core.evidence import Evidence
from difftrace.core.evidence_columns import LAYOUT
from difftrace.core.noise import Differences, differences, equal_logits, largest
from difftrace.core.pairs import Pair
from difftrace.core.recording import Baseline

# What the sampler made of the logits.
_STATISTICS: Final = tuple(
    column
    for column in LAYOUT
    if column.name not in {"candidates", "non_finite", "logits_digests", "sketches", "sketched", "noise_digests"}
)

Array = npt.NDArray[Any]


def drift_finding(pair: Pair, baseline: Baseline, tolerance: Tolerance | None) -> Finding | None:
    """Return what differs between two sequences of equal decisions, the golden's being one of `baseline`.

    None if nothing does that was recorded.
    """
    if pair.evidences is None:
        return _length(pair)
    golden, observed = pair.evidences
    if golden == observed:
        return _length(pair)
    steps = pair.shared_steps
    finding = _of_sampler(golden, observed, steps)
    if finding is None:
        other_logits = ~equal_logits(golden, observed, steps)
        changed = other_logits | _other_statistics(pair, golden, observed)
        if not changed.any():
            return _length(pair)
        found = differences((pair.golden.trajectory, golden), (pair.observed.trajectory, observed), steps)
        finding = (
            excess_finding(found, baseline, tolerance)
            or _of_numbers(found, other_logits, tolerance)
            or _length(pair)
            or _drift(found, changed, tolerance)
        )
        measured = found.measured(None if tolerance is None else tolerance.budget)
        finding = replace(finding, noise=measured, decided_by=finding.decided_by or largest(measured))
    return replace(finding, sequence=pair.index)


def _length(pair: Pair) -> Finding | None:
    if pair.divergence is None:
        return None
    steps = pair.golden.trajectory.num_steps, pair.observed.trajectory.num_steps
    reason = (
        f"The golden has {steps[0]} steps and the observed run {steps[1]}; the {pair.shared_steps} that both have are"
        " equal."
    )
    return Finding("LENGTH", reason, sequence=pair.index, step=pair.shared_steps)


def _of_sampler(golden: Evidence, observed: Evidence, steps: int) -> Finding | None:
    noise = np.flatnonzero(golden.noise_digests[:steps] != observed.noise_digests[:steps])
    if noise.size:
        step = int(noise[0])
        return Finding("RNG", f"The random numbers differ from step {step} on, although no decision does.", step=step)
    candidates = np.flatnonzero(golden.candidates[:steps] != observed.candidates[:steps])
    if candidates.size:
        step = int(candidates[0])
        reason = (
            f"At step {step} the golden chose among {golden.candidates[step]} candidates and the observed run among"
            f" {observed.candidates[step]}, on the same canvas."
        )
        return Finding("LOGIC", reason, step=step)
    return None


def _other_statistics(pair: Pair, golden: Evidence, observed: Evidence) -> Array:
    """Say for each shared step whether anything that the sampler made of the logits differs."""
    steps = pair.shared_steps
    of_events = pair.golden.trajectory.steps[pair.golden.trajectory.steps < steps]
    changed = np.zeros(steps, dtype=bool)
    for column in _STATISTICS:
        count = of_events.size if column.per == "event" else steps
        one, other = (getattr(evidence, column.name)[:count] for evidence in (golden, observed))
        differs = one != other
        if column.number == "<f4":
            differs &= ~(np.isnan(one) & np.isnan(other))
        rows = np.flatnonzero(differs.any(axis=tuple(range(1, differs.ndim))))
        changed[of_events[rows] if column.per == "event" else rows] = True
    return changed


def _of_numbers(found: Differences, other_logits: Array, tolerance: Tolerance | None) -> Finding | None:
    worst = largest(found.measured(None if tolerance is None else tolerance.budget))
    if tolerance is not None and worst is not None and worst.exceeds:
        step = found.first_above(tolerance.budget)
        if other_logits[step]:
            return Finding("NUMERIC", exceeding(worst), step=step)
        return Finding("LOGIC", f"{exceeding(worst)} At step {step} the logits are equal in every bit.", step=step)
    if found.barred is not None:
        reason = f"A confidence at step {found.barred} is 0 in one run only, which no noise makes it."
        return Finding("LOGIC", reason, step=found.barred)
    return None


def _drift(found: Differences, changed: Array, tolerance: Tolerance | None) -> Finding:
    steps = np.flatnonzero(changed)
    first = int(steps[0])
    covered = np.isin(steps, np.concatenate((found.scores.steps, found.confidences.steps, found.logits.steps)))
    if tolerance is not None and covered.all():
        reason = f"No decision differs, but what they were made from does from step {first} on, within the budget."
        return Finding("DRIFT", reason, step=first)
    lacking = [] if tolerance is not None else [NO_BUDGET]
    if not covered.all():
        lacking.append(f"How far the runs are apart at step {steps[~covered][0]}: no value there can be compared.")
    reason = f"No decision differs, but what they were made from does from step {first} on; by how much cannot be told."
    return Finding(None, reason, step=first, cannot_tell=tuple(lacking))
