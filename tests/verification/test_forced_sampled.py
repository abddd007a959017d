"""Sampled verification scores the steps it says, and catches what it says."""

from __future__ import annotations

import pytest
import torch

from difftrace.core.errors import RunError
from difftrace.core.recording import Baseline
from difftrace.models import LoadedModel
from difftrace.verification import ModelRunner
from difftrace.verification.forced import verify_forced, verify_sampled


@pytest.fixture(scope="module")
def golden(reference_model: LoadedModel) -> Baseline:
    run = ModelRunner(reference_model).generate(
        ["12 + 30 = ", "reverse lamp: "], gen_length=16, steps=16, temperature=0.9, noise="upstream", seed=8
    )
    return run.to_baseline(None)


def test_only_the_chosen_steps_are_scored(reference_model: LoadedModel, golden: Baseline) -> None:
    verdict = verify_sampled(reference_model, golden, count=5, seed=2)
    assert verdict.same
    assert verdict.sample is not None
    assert len(verdict.steps) == 5
    assert verdict.steps == verdict.sample.steps
    assert (verdict.sample.seed, verdict.sample.total, verdict.num_steps) == (2, 16, 16)
    assert len(verdict.scored) == 2 * 5


def test_the_seed_decides_which_steps(reference_model: LoadedModel, golden: Baseline) -> None:
    again = [verify_sampled(reference_model, golden, count=4, seed=seed).steps for seed in (0, 0, 1)]
    assert again[0] == again[1] != again[2]


def test_more_steps_than_there_are_is_all_of_them(reference_model: LoadedModel, golden: Baseline) -> None:
    verdict = verify_sampled(reference_model, golden, count=100)
    assert verdict.steps == tuple(range(16))
    assert verdict.sample is not None
    assert (verdict.sample.caught_from, verdict.sample.single) == (1, 1.0)


def test_a_fault_shows_in_the_sampled_steps_as_it_does_among_all(
    reference_model: LoadedModel, golden: Baseline
) -> None:
    weight = reference_model.model.get_submodule("model.transformer.ff_out").weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight[::2] *= 0.5
    try:
        everywhere = verify_forced(reference_model, golden, batch=1)
        sampled = verify_sampled(reference_model, golden, count=8, seed=1)
    finally:
        with torch.no_grad():
            weight.copy_(before)
    expected = tuple(one for one in everywhere.divergent if one.step in sampled.steps)
    assert expected
    assert sampled.divergent == expected
    assert sampled.first == expected[0].divergence


@pytest.mark.parametrize("count", [0, -1, True, 2.0])
def test_a_count_that_is_none_is_refused(reference_model: LoadedModel, golden: Baseline, count: int) -> None:
    with pytest.raises(RunError, match="count is the number of steps to check, a positive integer, not"):
        verify_sampled(reference_model, golden, count=count)
