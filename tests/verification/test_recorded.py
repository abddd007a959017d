"""A baseline runs again as it was recorded, and each of its steps is what the sampler handed to the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from difftrace.core.errors import BisectionError, RunError
from difftrace.core.recording import Baseline, SamplerIdentity, SequenceRecord
from difftrace.core.trajectory import Trajectory
from difftrace.models import LoadedModel
from difftrace.verification import ModelRunner
from difftrace.verification.bisect import bisect
from difftrace.verification.recorded import inputs_at, run_again

PADDED = [[5, 151, 163], [7]]
SETTINGS: list[tuple[Any, dict[str, Any]]] = [
    ([5, 151, 163], {}),
    (PADDED, {"block_length": 4}),
    ([5, 310, 163], {"cfg_scale": 1.5}),
    (PADDED, {"cfg_scale": 0.5, "temperature": 0.7, "remasking": "random", "seed": 4}),
    (PADDED, {"temperature": 0.7, "noise": "portable", "logits_eos_inf": True, "seed": 9}),
]


def recorded(loaded: LoadedModel, prompt: Any, settings: dict[str, Any]) -> Baseline:
    return ModelRunner(loaded).generate(prompt, gen_length=8, steps=4, **settings).to_baseline(None)


def seen_by(model: nn.Module, run: Any) -> list[tuple[Tensor, Tensor | None]]:
    """What a model is called with while `run` runs."""
    calls = []

    def keep(_module: nn.Module, args: Any, kwargs: Any) -> None:
        calls.append((args[0].clone(), kwargs["attention_mask"]))

    with model.register_forward_pre_hook(keep, with_kwargs=True):
        run()
    return calls


@pytest.mark.parametrize(("prompt", "settings"), SETTINGS)
def test_a_run_again_takes_the_same_decisions(
    conformance_model: LoadedModel, prompt: Any, settings: dict[str, Any]
) -> None:
    baseline = recorded(conformance_model, prompt, settings)
    assert run_again(conformance_model, baseline) == [record.trajectory for record in baseline.sequences]


@pytest.mark.parametrize(("prompt", "settings"), SETTINGS)
def test_the_inputs_of_every_step_are_those_of_the_run(
    conformance_model: LoadedModel, prompt: Any, settings: dict[str, Any]
) -> None:
    baseline = recorded(conformance_model, prompt, settings)
    calls = seen_by(conformance_model.model, lambda: run_again(conformance_model, baseline))
    assert len(calls) == 4
    for step, (ids, mask) in enumerate(calls):
        inputs = inputs_at(conformance_model, baseline, step, None)
        assert inputs.input_ids.equal(ids)
        assert (inputs.attention_mask is None) == (mask is None)
        assert mask is None or mask.equal(inputs.attention_mask)


def test_one_sequence_is_run_alone_with_its_own_padding(conformance_model: LoadedModel) -> None:
    baseline = recorded(conformance_model, PADDED, {"cfg_scale": 1.0})
    both = inputs_at(conformance_model, baseline, 2, None)
    alone = inputs_at(conformance_model, baseline, 2, 1)
    assert alone.input_ids.equal(both.input_ids[[1, 3]])
    assert both.attention_mask is not None
    assert alone.attention_mask is not None
    assert alone.attention_mask.equal(both.attention_mask[[1, 3]])
    assert inputs_at(conformance_model, baseline, 2, 0).attention_mask is None


@pytest.fixture
def baseline(conformance_model: LoadedModel) -> Baseline:
    return recorded(conformance_model, [5, 151, 163], {})


@pytest.mark.parametrize(
    ("step", "sequence", "says"),
    [
        (4, None, "there is no step 4: the baseline's are 0 to 3"),
        (-1, None, "there is no step -1"),
        (0, 1, "there is no sequence 1: the baseline's are 0 to 0"),
    ],
)
def test_steps_and_sequences_that_are_not_there_are_refused(
    conformance_model: LoadedModel, baseline: Baseline, step: int, sequence: int | None, says: str
) -> None:
    with pytest.raises(BisectionError, match=says):
        inputs_at(conformance_model, baseline, step, sequence)


def test_a_canvas_with_tokens_that_the_model_lacks_is_refused(reference_model: LoadedModel, baseline: Baseline) -> None:
    with pytest.raises(BisectionError, match="the canvas holds token 310, outside the vocabulary of 104 of reference"):
        inputs_at(reference_model, baseline, 0, None)


def test_sequences_that_were_no_batch_need_to_be_chosen(conformance_model: LoadedModel, baseline: Baseline) -> None:
    other = Trajectory(prompt=[1], initial=[1, 310], steps=[0], positions=[1], tokens=[5], num_steps=1)
    mixed = replace(baseline, sequences=(*baseline.sequences, SequenceRecord(other, None, None)))
    with pytest.raises(BisectionError, match="differ in length, so they were no batch; give --sequence"):
        inputs_at(conformance_model, mixed, 0, None)
    assert inputs_at(conformance_model, mixed, 0, 1).input_ids.equal(torch.tensor([[1, 310]]))
    with pytest.raises(RunError, match="are not one batch, so it cannot be run again"):
        run_again(conformance_model, mixed)


ARGUMENTS = {"steps": 4, "gen_length": 8, "block_length": 8, "seed": 0}


@pytest.mark.parametrize(
    ("sampler", "says"),
    [
        (None, "does not say which sampler ran"),
        (SamplerIdentity("mine", 1, {}), "recorded by sampler mine version 1, here is llada version"),
        (SamplerIdentity("llada", 99, ARGUMENTS), "recorded by sampler llada version 99"),
        (SamplerIdentity("llada", 1, {**ARGUMENTS, "beam": 2}), "the sampler argument 'beam', which there is not"),
        (SamplerIdentity("llada", 1, {"steps": 4}), "sampler arguments are not complete"),
        (SamplerIdentity("llada", 1, {**ARGUMENTS, "seed": None, "temperature": 1.0}), "there is no seed"),
        (SamplerIdentity("llada", 1, {**ARGUMENTS, "gen_length": 16}), "are not one batch"),
    ],
)
def test_a_baseline_that_does_not_say_how_it_ran_is_not_run_again(
    conformance_model: LoadedModel, baseline: Baseline, sampler: SamplerIdentity | None, says: str
) -> None:
    changed = replace(baseline, sampler=sampler)
    with pytest.raises(RunError, match=says):
        run_again(conformance_model, changed)
    with pytest.raises(BisectionError, match=f"{says}.*; give --step$"):
        bisect(conformance_model, changed)


def test_without_a_seed_a_run_that_draws_nothing_is_run_again(conformance_model: LoadedModel) -> None:
    baseline = recorded(conformance_model, [5, 151, 163], {"noise": "upstream"})
    assert baseline.sampler is not None
    sampler = replace(baseline.sampler, arguments={**baseline.sampler.arguments, "seed": None})
    seedless = replace(baseline, sampler=sampler)
    assert run_again(conformance_model, seedless) == [record.trajectory for record in baseline.sequences]
    assert bisect(conformance_model, seedless).decisions == "agree"
