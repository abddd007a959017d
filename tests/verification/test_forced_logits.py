"""Scored steps are held against the logits that were recorded: in batches by budget, as recorded bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from difftrace.core.recording import Baseline, Budget
from difftrace.core.verification import Asked, Verified
from difftrace.models import LoadedModel
from difftrace.reports.verification import result_lines
from difftrace.sampling import decision
from difftrace.verification import ModelRunner
from difftrace.verification.forced import verify_forced
from difftrace.verification.verify import verify

# Of three sequences, padded.
PROMPTS = ["7 + 5 = ", "sort 9 2 7 4: ", "reverse lamp: "]


@pytest.fixture(scope="module")
def golden(reference_model: LoadedModel) -> Baseline:
    return ModelRunner(reference_model).generate(PROMPTS, gen_length=16, steps=16, block_length=8).to_baseline(None)


@contextmanager
def hooked(loaded: LoadedModel, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Change what a layer returns; no weight is touched."""

    def changed(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        return change(output)

    with loaded.model.get_submodule("model.transformer.blocks.1").register_forward_hook(changed):
        yield


def verified(loaded: LoadedModel, golden: Baseline, batch: int | None) -> Verified:
    return verify(loaded, golden, Asked(strategy="forced", batch=batch))


def without_evidence(golden: Baseline) -> Baseline:
    return replace(golden, sequences=tuple(replace(record, evidence=None) for record in golden.sequences))


@pytest.mark.parametrize("batch", [None, 1])
def test_a_layer_that_is_off_by_a_thousandth_is_numeric_although_no_decision_differs(
    reference_model: LoadedModel, golden: Baseline, batch: int | None
) -> None:
    with hooked(reference_model, lambda output: output * 1.001):
        found = verified(reference_model, golden, batch)
        rerun = verify(reference_model, golden, Asked())
    assert found.forced is not None
    assert (found.forced.divergent, found.forced.same, found.forced.repeats) == ((), False, True)
    assert found.classification.divergence_class == rerun.classification.divergence_class == "NUMERIC"
    assert not found.judgement.passes
    assert found.where == (0, 0, None)
    [measured] = (one for one in rerun.classification.noise if one.quantity == "logits")
    assert found.classification.epsilon is not None
    assert 0 < found.classification.epsilon <= measured.epsilon
    assert found.classification.tau == measured.tau


def test_one_step_beyond_the_budget_as_recorded_is_enough(reference_model: LoadedModel, golden: Baseline) -> None:
    with hooked(reference_model, lambda output: output * 1.001):
        assert verify_forced(reference_model, golden).rescored == 1


def test_what_only_a_batch_moves_beyond_the_budget_is_cleared_as_recorded(
    misbehaving: Callable[..., LoadedModel], golden: Baseline
) -> None:
    coarse = misbehaving(lambda call: call.logits if len(call.ids) == len(PROMPTS) else call.logits * 1.0001)
    verdict = verify_forced(coarse, golden)
    assert verdict.same
    assert verdict.rescored == 16
    assert verdict.exact


def test_less_than_the_budget_is_drift_as_recorded_and_not_told_in_batches(
    reference_model: LoadedModel, golden: Baseline
) -> None:
    with hooked(reference_model, lambda output: output * (1 + 2**-22)):
        alone = verified(reference_model, golden, 1)
        batched = verified(reference_model, golden, None)
    assert (alone.classification.divergence_class, alone.judgement.passes, alone.judgement.warns) == (
        "DRIFT",
        True,
        True,
    )
    assert batched.classification.divergence_class == "IDENTICAL"
    assert any("equal in every bit" in sentence for sentence in batched.classification.cannot_tell)
    assert not any("equal in every bit" in sentence for sentence in alone.classification.cannot_tell)
    clean = verified(reference_model, golden, None)
    assert clean.forced is not None
    some_differ = any(one.logits is not None and not one.logits.same for one in clean.forced.scored)
    assert any("equal in every bit" in sentence for sentence in clean.classification.cannot_tell) == some_differ


@pytest.mark.parametrize("batch", [None, 1])
def test_values_that_are_no_numbers_are_told_as_such(
    reference_model: LoadedModel, golden: Baseline, batch: int | None
) -> None:
    with hooked(reference_model, lambda output: output * torch.nan):
        found = verified(reference_model, golden, batch).classification
    assert (found.divergence_class, found.step) == ("NON_FINITE", 0)


def test_scores_that_count_no_further_are_shown_as_bounds(reference_model: LoadedModel, golden: Baseline) -> None:
    with hooked(reference_model, lambda output: output * torch.nan):
        found = verified(reference_model, without_evidence(golden), None)
    lines = " ".join(result_lines("golden.json", Asked(strategy="forced"), found))
    assert "(tokens by at least 10, order by at least 10)" in " ".join(lines.split())
    assert "(at step 0: tokens by at least 10, order by at least 10)" in found.classification.reason


@pytest.mark.parametrize("batch", [None, 1])
def test_dropout_left_on_is_told_from_a_fault_that_repeats_itself(
    reference_model: LoadedModel, golden: Baseline, batch: int | None
) -> None:
    with hooked(reference_model, lambda output: nn.functional.dropout(output, 0.1, training=True)):
        found = verified(reference_model, golden, batch).classification
    assert found.divergence_class == "RUN_TO_RUN"


@pytest.mark.parametrize("batch", [None, 1])
def test_without_evidence_decisions_are_all_that_is_compared_and_that_is_said(
    reference_model: LoadedModel, golden: Baseline, batch: int | None
) -> None:
    with hooked(reference_model, lambda output: output * 1.001):
        found = verified(reference_model, without_evidence(golden), batch)
    assert found.forced is not None
    assert found.classification.divergence_class == "IDENTICAL"
    assert "Whether the logits are the same: the golden came without evidence." in found.classification.cannot_tell
    assert "decisions alone were compared" in found.forced.basis


def test_without_a_budget_other_logits_are_neither_noise_nor_a_fault(
    reference_model: LoadedModel, golden: Baseline
) -> None:
    unknown = replace(golden, environment={})
    assert verified(reference_model, unknown, 1).judgement.passes
    with hooked(reference_model, lambda output: output * 1.001):
        found = verified(reference_model, unknown, 1)
    assert (found.classification.divergence_class, found.judgement.passes) == (None, False)


def test_a_choice_from_equal_logits_is_no_near_tie_however_close(
    reference_model: LoadedModel, golden: Baseline, monkeypatch: pytest.MonkeyPatch
) -> None:
    generous = replace(golden, budget=Budget(9.0, 9.0, 9.0, {}))

    def second_best(confidence: Tensor, count: int) -> Tensor:
        return torch.sort(confidence, dim=-1, descending=True, stable=True).indices[:, 1 : 1 + count]

    monkeypatch.setitem(decision.SELECT, "stable", second_best)
    found = verify(reference_model, generous, Asked(strategy="forced", policy="near-tie"))
    assert (found.classification.divergence_class, found.judgement.passes) == (None, False)
    assert "equal in every bit: the sampler has changed" in found.classification.reason


def test_what_differs_in_the_environment_is_a_suspect(reference_model: LoadedModel, golden: Baseline) -> None:
    elsewhere = replace(golden, environment={**golden.environment, "torch": "1.0.0", "threads": 7})
    with hooked(reference_model, lambda output: output * 1.5):
        found = verified(reference_model, elsewhere, None)
    fields = {one.field: (one.golden, one.observed) for one in found.classification.suspects}
    assert fields == {"environment.torch": ("1.0.0", torch.__version__), "environment.threads": (7, 1)}
