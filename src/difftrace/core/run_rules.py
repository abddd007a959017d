"""Rules on what happened on the way: NON_FINITE and RUN_TO_RUN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from difftrace.core.classes import Finding
from difftrace.core.evidence import Evidence
from difftrace.core.identity_rules import identity_finding
from difftrace.core.pairs import Pair, pairs
from difftrace.core.recording import Baseline
from difftrace.core.trajectory import Trajectory

NOT_REPEATED: Final = "Whether the observed run repeats itself: it was not run a second time."
_NO_REPETITION: Final = "Whether the observed run repeats itself: what was given as its repetition ran {}."


def non_finite_finding(sequences: Sequence[Pair]) -> Finding | None:
    """Return the first step whose logits are not finite as far as the canvases are equal, or None.

    Where no decision differs, only other numbers of them in the two runs count.
    """
    return min(filter(None, map(_non_finite, sequences)), key=lambda finding: finding.step or 0, default=None)


def _non_finite(pair: Pair) -> Finding | None:
    if pair.evidences is None:
        return None
    sides = zip((pair.golden, pair.observed), pair.evidences, strict=True)
    habits = [_habit(record.trajectory, evidence, pair.shared_steps) for record, evidence in sides]
    if habits[0] is not None and habits[0] == habits[1]:
        return None
    golden, observed = (evidence.non_finite[: pair.shared_steps] for evidence in pair.evidences)
    counted = golden != observed if pair.parting is None else (golden > 0) | (observed > 0)
    if not counted.any():
        return None
    step = int(counted.argmax())
    reason = (
        f"The model returned NaN or infinite logits: {golden[step]} of them at step {step} in the golden,"
        f" {observed[step]} in the observed run."
    )
    return Finding("NON_FINITE", reason, sequence=pair.index, step=step)


def _habit(trajectory: Trajectory, evidence: Evidence, steps: int) -> int | None:
    """Return how many infinite logits the model has at every candidate, say -inf for ids that pad its vocabulary.

    That is no fault, as long as it is the same number everywhere and leaves every score a number; None where it is not.
    """
    non_finite, candidates = evidence.non_finite[:steps], evidence.candidates[:steps]
    per_candidate = int(non_finite.max(initial=0)) // max(1, int(candidates.max(initial=0)))
    if (non_finite != per_candidate * candidates).any():
        return None
    return None if np.isnan(evidence.top_scores[trajectory.steps < steps]).any() else per_candidate


def non_finite_step(run: Baseline) -> int | None:
    """Return the first step at which a run's model returned NaN or infinite logits, of any of its sequences.

    None where it did not, where it always does at every candidate (-inf for ids that pad its vocabulary), and without
    evidence.
    """
    found = (_first_non_finite(record.trajectory, record.evidence) for record in run.sequences if record.evidence)
    return min((step for step in found if step is not None), default=None)


def _first_non_finite(trajectory: Trajectory, evidence: Evidence) -> int | None:
    if not evidence.num_steps or _habit(trajectory, evidence, evidence.num_steps) is not None:
        return None
    return int((evidence.non_finite > 0).argmax())


def run_to_run_finding(observed: Baseline, repeated: Baseline) -> Finding | str | None:
    """Return what differs between a run and its repetition, or None.

    A sentence instead says why nothing follows: the second run is no repetition of the first.
    """
    if dict(observed.environment) != dict(repeated.environment):
        return _NO_REPETITION.format("in another environment")
    if identity_finding(observed, repeated) is not None:
        return _NO_REPETITION.format("something else")
    found = filter(None, map(_run_to_run, pairs(observed, repeated)))
    return min(found, key=lambda finding: finding.step or 0, default=None)


def _run_to_run(pair: Pair) -> Finding | None:
    what = {}
    if pair.divergence is not None and pair.divergence.step is not None:
        what[pair.divergence.step] = "decisions differ"
    if pair.evidences is not None:
        for name, text in (("logits_digests", "logits differ"), ("noise_digests", "random numbers differ")):
            before, after = (getattr(evidence, name)[: pair.shared_steps] for evidence in pair.evidences)
            differs = np.flatnonzero((before != after).any(axis=tuple(range(1, before.ndim))))
            if differs.size:
                what[int(differs[0])] = text
    if not what:
        return None
    step = min(what)
    reason = (
        f"The observed run does not repeat itself: run again in the same environment, its {what[step]} at step {step}."
    )
    return Finding("RUN_TO_RUN", reason, sequence=pair.index, step=step)
