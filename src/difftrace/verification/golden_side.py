"""Whether a model computes here what the golden run did, so that its traces may stand for the golden ones."""

from __future__ import annotations

from difftrace.core.environments import comparable
from difftrace.core.errors import BisectionError
from difftrace.core.forced import ForcedVerdict, ScoredStep
from difftrace.core.recording import Baseline
from difftrace.models import LoadedModel


def refuse_other_logits(loaded: LoadedModel, baseline: Baseline, verdict: ForcedVerdict) -> None:
    """Raise BisectionError where `loaded`, scored as recorded, has other logits than the baseline's evidence.

    Other in a bit where the environments let bits be compared, elsewhere by more than the budget.
    """
    environments = comparable(baseline.environment, verdict.environment)
    other = verdict.drifted if environments else verdict.beyond_noise
    if other:
        raise BisectionError(
            f"at step {other[0].step} the logits of model {loaded.name} are not those of the golden run:"
            f" {_by_how_much(other[0], bool(environments))}. What it computes is nothing to compare with"
        )


def _by_how_much(one: ScoredStep, same_bits: bool) -> str:
    assert one.logits is not None
    if one.logits.non_finite != one.logits.golden_non_finite:
        return f"{one.logits.non_finite} are NaN or infinite, {one.logits.golden_non_finite} were"
    if one.logits.epsilon is None:
        return "by how much cannot be told"
    differ = f"they differ by a root mean square of {one.logits.epsilon:.2g}"
    if same_bits:
        return f"{differ}, in an environment in which every bit should be equal"
    return differ if one.logits.tau is None else f"{differ}, and the budget is {one.logits.tau:.2g}"
