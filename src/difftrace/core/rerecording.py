"""What a recording carries over from the baseline that it takes the place of."""

from __future__ import annotations

from dataclasses import replace

from difftrace.core.budgets import amplification
from difftrace.core.recording import Baseline


def with_kept(golden: Baseline, run: Baseline, passed: bool) -> Baseline:
    """Return `run` with the budget and the probes of `golden` as far as they say something of it.

    `passed` is whether the run passed as a verification of `golden`.
    """
    budget = None if loses_budget(golden, run) else golden.budget
    probes = () if loses_probes(golden, run, passed) else golden.probes
    return replace(run, budget=budget, probes=probes)


def loses_budget(golden: Baseline, run: Baseline) -> bool:
    """Return whether the baseline was calibrated to a budget that says nothing of the run in its place.

    It was measured of the numbers that a model computes in a dtype, with guidance or without; other weights leave it as
    good as it was.
    """
    if golden.budget is None:
        return False
    before, after = (
        (one.environment.get("dtype"), getattr(one.model, "config", None), amplification(one)) for one in (golden, run)
    )
    return before != after


def loses_probes(golden: Baseline, run: Baseline, passed: bool) -> bool:
    """Return whether the baseline has probes that say nothing of the run in its place.

    They are of the model on golden canvases: both must be those of the run, which also must have passed, lest its
    numbers be others.
    """
    if not golden.probes:
        return False
    before, after = (
        (one.environment.get("dtype"), getattr(one.model, "weights", None), getattr(one.model, "config", None))
        for one in (golden, run)
    )
    return not passed or not golden.same_decisions(run) or before != after
