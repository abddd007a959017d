"""Forced verification agrees with what was recorded, and refuses what it cannot decide again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from difftrace.core.comparison import Divergence, compare_sequences
from difftrace.core.errors import RunError
from difftrace.core.recording import Baseline, SequenceRecord
from difftrace.core.trajectory import Trajectory
from difftrace.determinism.digest import digest
from difftrace.models import LoadedModel
from difftrace.verification import ModelRunner
from difftrace.verification.forced import verify_forced
from difftrace.verification.recorded import run_again

PADDED = ["7 + 5 = ", "sort 9 2 7 4: ", "reverse lamp: "]

SETTINGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "greedy": ("12 + 30 = ", {}),
    "several a step": ("reverse stone: ", {"steps": 6, "block_length": 16}),
    "blocks": ("12 + 30 = ", {"block_length": 4}),
    "blocks of unequal quotas": ("sort 9 2 7 4: ", {"steps": 6, "block_length": 8}),
    "empty steps": ("reverse lamp: ", {"steps": 40, "block_length": 8}),
    "guidance": ("12 + 30 = ", {"cfg_scale": 1.5}),
    "padding": (PADDED, {"block_length": 8}),
    "padding, guidance, empty steps": (PADDED, {"cfg_scale": 0.7, "steps": 24, "block_length": 8}),
    "no EOS": ("12 + 30 = ", {"logits_eos_inf": True}),
    "EOS last": (PADDED, {"confidence_eos_eot_inf": True}),
    "topk": (PADDED, {"tie_break": "upstream", "steps": 6, "block_length": 8}),
    "portable noise": (PADDED, {"temperature": 0.8, "seed": 3}),
    "portable noise, random order": (PADDED, {"temperature": 0.8, "remasking": "random", "seed": 4, "steps": 6}),
    "upstream noise": (PADDED, {"temperature": 0.8, "noise": "upstream", "seed": 3}),
    "upstream noise, random order": (PADDED, {"temperature": 0.8, "remasking": "random", "noise": "upstream"}),
    "upstream random order, empty steps": ("4 + 4 = ", {"remasking": "random", "noise": "upstream", "steps": 24}),
    "everything": (
        PADDED,
        {"cfg_scale": 1.0, "temperature": 0.5, "noise": "upstream", "confidence_eos_eot_inf": True, "block_length": 8},
    ),
}


def recorded(loaded: LoadedModel, prompt: Any, **settings: Any) -> Baseline:
    return ModelRunner(loaded).generate(prompt, **{"gen_length": 16, "steps": 16, **settings}).to_baseline(None)


def rerun(loaded: LoadedModel, golden: Baseline) -> Divergence | None:
    return compare_sequences([record.trajectory for record in golden.sequences], run_again(loaded, golden))


@pytest.fixture(scope="module", params=SETTINGS)
def golden(request: pytest.FixtureRequest, reference_model: LoadedModel) -> Baseline:
    prompt, settings = SETTINGS[request.param]
    return recorded(reference_model, prompt, **settings)


@pytest.mark.parametrize("batch", [None, 3])
def test_a_clean_run_agrees_in_every_step(reference_model: LoadedModel, golden: Baseline, batch: int | None) -> None:
    verdict = verify_forced(reference_model, golden, batch=batch)
    assert verdict.same
    assert verdict.divergent == ()
    assert verdict.frame == ()
    trajectories = [record.trajectory for record in golden.sequences]
    assert verdict.steps == tuple(range(trajectories[0].num_steps))
    assert len(verdict.scored) == len(trajectories) * trajectories[0].num_steps
    assert verdict.baseline == golden.digest
    assert verdict.left_masked == (0,) * len(trajectories)


def test_scored_alone_a_clean_run_is_exact_and_its_scores_are_zero(
    reference_model: LoadedModel, golden: Baseline
) -> None:
    verdict = verify_forced(reference_model, golden, batch=1)
    assert verdict.exact
    assert (verdict.batch, verdict.rescored) == (1, 0)
    assert {(one.token_score, one.order_score) for one in verdict.scored} == {(0.0, 0.0)}
    held = [one.logits for one in verdict.scored]
    assert {None if one is None else (one.same, one.epsilon) for one in held} == {(True, 0.0)}
    assert verdict.repeats is None


def test_the_model_and_the_random_state_are_as_before(reference_model: LoadedModel) -> None:
    golden = recorded(reference_model, PADDED, temperature=0.5, noise="upstream")
    model = reference_model.model
    before = {name: digest(tensor) for name, tensor in model.state_dict().items()}
    states = torch.get_rng_state()
    verify_forced(reference_model, golden)
    assert {name: digest(tensor) for name, tensor in model.state_dict().items()} == before
    assert torch.get_rng_state().equal(states)
    assert not model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_differs_beside_decisions_is_found_as_a_rerun_finds_it(
    reference_model: LoadedModel, with_trajectory: Callable[..., Baseline]
) -> None:
    golden = recorded(reference_model, PADDED, block_length=8)
    second = golden.sequences[1].trajectory
    initial = second.initial.copy()
    initial[-3] = 9
    hidden = np.ones(second.length, dtype=int)
    hidden[-1] = 0
    for changes, kind in (
        ({"num_steps": 20}, "length"),
        ({"initial": initial}, "initial"),
        ({"prompt": [5, 5]}, "prompt"),
        ({"attention_mask": hidden}, "prompt"),
    ):
        changed = with_trajectory(golden, 1, **changes)
        verdict = verify_forced(reference_model, changed)
        assert verdict.first is not None
        assert verdict.first.kind == kind
        assert verdict.first == rerun(reference_model, changed)
        assert [one.sequence for one in verdict.frame] == [1]


def test_a_baseline_that_ends_early_is_a_length_and_says_what_is_left_masked(
    reference_model: LoadedModel, with_trajectory: Callable[..., Baseline]
) -> None:
    golden = recorded(reference_model, "12 + 30 = ")
    whole = golden.sequences[0].trajectory
    kept = whole.steps < 12
    columns = {name: getattr(whole, name)[kept] for name in ("steps", "positions", "tokens")}
    cut = with_trajectory(golden, 0, **columns, num_steps=12)
    verdict = verify_forced(reference_model, cut)
    assert verdict.num_steps == 12
    assert verdict.left_masked == (4,)
    assert verdict.divergent == ()
    assert verdict.first == rerun(reference_model, cut) == Divergence("length", 0, 12, None, None, None, 12, 12)


def test_steps_can_be_chosen(reference_model: LoadedModel) -> None:
    golden = recorded(reference_model, PADDED)
    verdict = verify_forced(reference_model, golden, steps=[9, 2, 2, 15])
    assert verdict.steps == (2, 9, 15)
    assert (verdict.num_steps, len(verdict.scored)) == (16, 9)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"steps": [16]}, "there is no step 16: the baseline's are 0 to 15"),
        ({"steps": [-1, 3]}, "there is no step -1: the baseline's are 0 to 15"),
        ({"steps": []}, "steps names no step; leave it out to score all"),
        ({"batch": 0}, "batch is the number of canvases in one forward pass, a positive integer, not 0"),
        ({"batch": True}, "a positive integer, not True"),
    ],
)
def test_what_cannot_be_scored_is_refused(reference_model: LoadedModel, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(RunError, match=says):
        verify_forced(reference_model, recorded(reference_model, "7 + 5 = "), **arguments)


def reseeded(golden: Baseline, seed: int | None) -> Baseline:
    assert golden.sampler is not None
    return replace(golden, sampler=replace(golden.sampler, arguments={**golden.sampler.arguments, "seed": seed}))


def test_noise_of_an_unknown_seed_is_refused_where_there_is_any(reference_model: LoadedModel) -> None:
    drawn = recorded(reference_model, "7 + 5 = ", temperature=0.5, noise="upstream", seed=1)
    with pytest.raises(RunError, match=r"no seed draws from torch's global generator.*give a seed"):
        verify_forced(reference_model, reseeded(drawn, None))
    # Greedy steps draw nothing: they can be verified even so, which a rerun cannot promise.
    assert verify_forced(reference_model, reseeded(recorded(reference_model, "7 + 5 = ", noise="upstream"), None)).same


def test_noise_of_another_seed_diverges(reference_model: LoadedModel) -> None:
    for settings in ({"noise": "upstream"}, {"noise": "portable"}):
        golden = reseeded(recorded(reference_model, PADDED, temperature=1.0, seed=1, **settings), 2)
        assert verify_forced(reference_model, golden).first == rerun(reference_model, golden) is not None


def test_tokens_that_the_model_does_not_have_are_refused(
    reference_model: LoadedModel, conformance_model: LoadedModel
) -> None:
    golden = recorded(conformance_model, [5, 151, 163], gen_length=8, steps=8)
    with pytest.raises(RunError, match="holds token 310, outside the vocabulary of 104 of reference"):
        verify_forced(reference_model, golden)


def test_sequences_that_were_no_batch_are_refused(reference_model: LoadedModel) -> None:
    golden = recorded(reference_model, "7 + 5 = ")
    other = Trajectory(prompt=[1], initial=[1, 0], steps=[0], positions=[1], tokens=[5], num_steps=1)
    with pytest.raises(RunError, match="sequences are not one batch"):
        verify_forced(
            reference_model, replace(golden, sequences=(*golden.sequences, SequenceRecord(other, None, None)))
        )
