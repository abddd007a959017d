"""A budget is the largest difference of trusted pairs, with a margin, and says what it was measured on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from difftrace.core.budgets import DEFAULTS
from difftrace.core.calibration import Calibration, TrustedPair, calibrated
from difftrace.core.classification import classify
from difftrace.core.errors import CalibrationError, RunError
from difftrace.core.noise import Measured
from difftrace.core.recording import Baseline, SamplerIdentity
from difftrace.models import LoadedModel, load_model
from difftrace.verification.calibrate import calibrate
from difftrace.verification.runner import ModelRunner

SIZES = {"gen_length": 16, "steps": 8, "block_length": 8}
PROMPTS = [[3, 5, 7, 9], [4, 4]]


@pytest.fixture(scope="module")
def narrow(conformance_folder: Path) -> LoadedModel:
    return load_model(conformance_folder, dtype="bfloat16", device="cpu")


def pair_of(found: Calibration, name: str) -> TrustedPair:
    return next(pair for pair in found.pairs if pair.name == name)


def test_the_largest_difference_of_any_pair_times_the_margin_is_the_budget(narrow: LoadedModel) -> None:
    golden = ModelRunner(narrow).generate(PROMPTS, **SIZES).to_baseline(None)
    found = calibrate(narrow, golden, margin=2.0)
    for quantity in ("scores", "confidences", "logits"):
        largest = max(one.epsilon for pair in found.pairs for one in pair.measured if one.quantity == quantity)
        assert getattr(found.budget, quantity) == pytest.approx(2 * largest)
    assert all(one.epsilon == 0 for one in pair_of(found, "repeat").measured)
    assert all(one.epsilon > 0 for one in pair_of(found, "float32 compute").measured)
    measured = found.budget.measured
    assert {"each sequence alone", "batch doubled", "float32 compute"} <= set(str(measured["pairs"]).split(", "))
    assert (measured["margin"], measured["torch"], measured["platform"]) == (2.0, torch.__version__, "cpu")
    assert measured["dtype"] == "bfloat16"
    assert narrow.model.model.transformer.wte.weight.dtype == torch.bfloat16


def test_what_cannot_run_is_named(conformance_model: LoadedModel) -> None:
    golden = ModelRunner(conformance_model).generate(PROMPTS[0], **SIZES, temperature=0.5, noise="upstream")
    found = calibrate(conformance_model, golden.to_baseline(None))
    not_run = str(found.budget.measured["not run"])
    assert "float32 compute: the model computes in it anyway" in not_run
    assert "batch doubled: with the published sampler's noise another batch draws other random numbers" in not_run


def test_a_calibrated_budget_takes_the_trusted_environment_for_noise(narrow: LoadedModel) -> None:
    golden = ModelRunner(narrow).generate(PROMPTS, **SIZES).to_baseline(None)
    golden = replace(golden, budget=calibrate(narrow, golden).budget)
    wide = replace(narrow, model=load_model(narrow.folder, device="cpu").model.bfloat16().float(), dtype=torch.float32)
    observed = ModelRunner(wide).generate(PROMPTS, **SIZES).to_baseline(None)
    assert classify(golden, observed).divergence_class in ("DRIFT", "NEAR_TIE")


def test_a_model_that_does_not_repeat_itself_measures_nothing(conformance_model: LoadedModel) -> None:
    golden = ModelRunner(conformance_model).generate(PROMPTS, **SIZES).to_baseline(None)
    calls = []

    def spoil(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return output if len(calls) <= 8 else output.flip(-1)

    handle = conformance_model.model.model.transformer.ff_out.register_forward_hook(spoil)
    try:
        with pytest.raises(CalibrationError, match="does not repeat itself"):
            calibrate(conformance_model, golden)
    finally:
        handle.remove()


def test_a_baseline_that_does_not_say_how_it_was_recorded_is_refused(conformance_model: LoadedModel) -> None:
    golden = ModelRunner(conformance_model).generate(PROMPTS, **SIZES).to_baseline(None)
    with pytest.raises(RunError, match="which sampler"):
        calibrate(conformance_model, replace(golden, sampler=None))


@pytest.fixture
def golden(conformance_model: LoadedModel) -> Baseline:
    guided = SamplerIdentity("llada", 1, {"cfg_scale": 1.0})
    run = ModelRunner(conformance_model).generate(PROMPTS, **SIZES)
    return replace(run.to_baseline(None), sampler=guided)


Make = Callable[..., Calibration]


@pytest.fixture
def made(golden: Baseline) -> Make:
    def make(*values: tuple[str, float], margin: float = 1.5) -> Calibration:
        measured = tuple(Measured(name, epsilon, None, 1, 0) for name, epsilon in values)  # type: ignore[arg-type]
        return calibrated([TrustedPair("p", measured, 1, 1), TrustedPair("q", not_run="no")], golden, margin, {})

    return make


def test_no_budget_is_below_what_evidence_resolves(made: Make) -> None:
    budget = made(("scores", 0.0), ("confidences", 0.0), ("logits", 0.0)).budget
    assert (budget.scores, budget.confidences, budget.logits) == (4e-6, 4e-6, DEFAULTS["float64"].logits)


def test_a_quantity_that_was_not_compared_is_allowed_what_the_logits_are(made: Make) -> None:
    budget = made(("logits", 0.01)).budget
    # Four times the root mean square, three times for guidance.
    assert budget.scores == pytest.approx(12 * 0.015)


def test_without_anything_compared_or_with_a_margin_below_one_there_is_no_budget(made: Make) -> None:
    with pytest.raises(CalibrationError, match="nothing to take a budget from"):
        made()
    with pytest.raises(CalibrationError, match="at least 1"):
        made(("logits", 0.01), margin=0.5)


def test_a_model_in_another_dtype_is_refused_as_its_noise_is_no_noise_of_the_golden(
    conformance_model: LoadedModel, narrow: LoadedModel
) -> None:
    golden = ModelRunner(conformance_model).generate(PROMPTS[0], gen_length=4, steps=4).to_baseline(None)
    with pytest.raises(CalibrationError, match="was in float32, not in bfloat16, whose noise is another; give --dtype"):
        calibrate(narrow, golden)
    # A baseline that does not name its dtype can still be calibrated.
    assert calibrate(conformance_model, replace(golden, environment={})).budget.measured["dtype"] == "float32"


def test_a_model_of_another_configuration_is_refused(conformance_model: LoadedModel) -> None:
    golden = ModelRunner(conformance_model).generate(PROMPTS[0], gen_length=4, steps=4).to_baseline(None)
    other = replace(conformance_model, config=replace(conformance_model.config, rms_norm_eps=1e-3))
    with pytest.raises(CalibrationError, match="has other config than the one that was recorded"):
        calibrate(other, golden)


def test_without_a_seed_a_run_that_draws_nothing_is_calibrated(conformance_model: LoadedModel) -> None:
    golden = ModelRunner(conformance_model).generate(PROMPTS[0], gen_length=4, steps=4, noise="upstream")
    baseline = golden.to_baseline(None)
    assert baseline.sampler is not None
    sampler = replace(baseline.sampler, arguments={**baseline.sampler.arguments, "seed": None})
    calibrate(conformance_model, replace(baseline, sampler=sampler))
    drawn = replace(sampler, arguments={**sampler.arguments, "temperature": 0.5})
    with pytest.raises(RunError, match="cannot be run again"):
        calibrate(conformance_model, replace(baseline, sampler=drawn))
