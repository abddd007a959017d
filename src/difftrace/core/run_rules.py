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
    golden, observed = (evidence.non_finite[: pair.shared_steps] for evidence in pair.evidences)
    counted = golden != observed
    if pair.parting is not None and not _is_habit(pair, pair.evidences):
        counted = (golden > 0) | (observed > 0)
    if not counted.any():
        return None
    step = int(counted.argmax())
    reason = (
        f"The model returned NaN or infinite logits: {golden[step]} of them at step {step} in the golden,"
        f" {observed[step]} in the observed run."
    )
    return Finding("NON_FINITE", reason, sequence=pair.index, step=step)


def _is_habit(pair: Pair, evidences: tuple[Evidence, Evidence]) -> bool:
    """Say whether the model always returns -inf for some ids, say for those that pad its vocabulary: no fault.

    Then every candidate has as many, in both runs, and they leave every score a number.
    """
    steps = pair.shared_steps
    for record, evidence in zip((pair.golden, pair.observed), evidences, strict=True):
        per_candidate = int(evidence.non_finite[0]) // max(1, int(evidence.candidates[0]))
        if (evidence.non_finite[:steps] != per_candidate * evidence.candidates[:steps]).any():
            return False
        if np.isnan(evidence.top_scores[record.trajectory.steps < steps]).any():
            return False
    return True


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
