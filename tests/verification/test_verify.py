"""A baseline verified outside any test: what makes a rerun be repeated."""

from __future__ import annotations

from collections.abc import Callable

from difftrace.core.verification import Asked
from difftrace.models import LoadedModel
from difftrace.verification import ModelRunner
from difftrace.verification.verify import verify


def test_a_model_that_drifts_from_run_to_run_fails_where_that_is_asked(
    reference_model: LoadedModel, misbehaving: Callable[..., LoadedModel]
) -> None:
    golden = ModelRunner(reference_model).generate("7 + 5 = ", gen_length=4, steps=4).to_baseline(None)
    # By less than the budget, and so little that no decision differs.
    drifting = misbehaving(lambda call: call.logits * (1 + call.number * 2**-23))
    found = verify(drifting, golden, Asked())
    assert (found.classification.divergence_class, found.judgement.passes) == ("DRIFT", True)
    found = verify(drifting, golden, Asked(fail_on=("run-to-run",)))
    assert (found.classification.divergence_class, found.judgement.passes) == ("RUN_TO_RUN", False)
    assert verify(reference_model, golden, Asked(fail_on=("RUN_TO_RUN",))).judgement.passes
