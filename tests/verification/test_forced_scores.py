"""How far a step is off is measured on what the model says of the golden decision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from difftrace.core.comparison import Divergence
from difftrace.core.forced import MOST
from difftrace.core.recording import Baseline
from difftrace.models import LoadedModel
from difftrace.verification import ModelRunner
from difftrace.verification.forced import verify_forced

PADDED = ["7 + 5 = ", "sort 9 2 7 4: ", "reverse lamp: "]


def recorded(loaded: LoadedModel, prompt: Any, **settings: Any) -> Baseline:
    return ModelRunner(loaded).generate(prompt, **{"gen_length": 16, "steps": 16, **settings}).to_baseline(None)


def test_a_token_is_as_far_off_as_the_logits_say(
    reference_model: LoadedModel, with_trajectory: Callable[..., Baseline]
) -> None:
    golden = recorded(reference_model, "12 + 30 = ")
    trajectory = golden.sequences[0].trajectory
    event = 5
    step, position, token = (
        int(column[event]) for column in (trajectory.steps, trajectory.positions, trajectory.tokens)
    )
    logits = reference_model.model(torch.tensor(trajectory.canvas(step))[None].long()).logits[0, position].double()
    other = int(logits.argsort(descending=True)[1])
    tokens = trajectory.tokens.copy()
    tokens[event] = other
    verdict = verify_forced(reference_model, with_trajectory(golden, 0, tokens=tokens), steps=[step], batch=1)
    (one,) = verdict.divergent
    assert one.divergence == Divergence("decision", 0, step, position, other, token, step, event)
    assert one.token_score == pytest.approx(min(float(logits[token] - logits[other]), MOST), abs=1e-5)
    assert one.order_score == 0


def test_a_position_is_as_far_off_as_the_confidences_say(
    reference_model: LoadedModel, with_trajectory: Callable[..., Baseline]
) -> None:
    golden = recorded(reference_model, "reverse stone: ")
    trajectory = golden.sequences[0].trajectory
    logits = reference_model.model(torch.tensor(trajectory.initial)[None].long()).logits[0].double()
    confidences = torch.log_softmax(logits, -1).amax(-1)
    masked = torch.tensor(trajectory.initial == reference_model.config.mask_token_id)
    worst = int(confidences.masked_fill(~masked, torch.inf).argmin())
    best = int(trajectory.positions[0])
    columns = {"steps": [0], "positions": [worst], "tokens": [int(logits[worst].argmax())]}
    verdict = verify_forced(reference_model, with_trajectory(golden, 0, **columns), steps=[0], batch=1)
    (one,) = verdict.divergent
    assert one.token_score == 0
    assert one.order_score == pytest.approx(float(confidences[best] - confidences[worst]), abs=1e-4)


def test_what_could_not_be_committed_is_as_far_off_as_can_be(
    reference_model: LoadedModel, with_trajectory: Callable[..., Baseline]
) -> None:
    golden = recorded(reference_model, "12 + 30 = ", logits_eos_inf=True, block_length=8)
    trajectory = golden.sequences[0].trajectory
    outside = {"steps": [0], "positions": [trajectory.length - 1], "tokens": [reference_model.config.eos_token_id]}
    (one,) = verify_forced(reference_model, with_trajectory(golden, 0, **outside), steps=[0]).divergent
    assert (one.token_score, one.order_score) == (MOST, MOST)


def test_logits_that_are_no_numbers_are_as_far_off_as_can_be(misbehaving: Callable[..., LoadedModel]) -> None:
    golden = recorded(misbehaving(), "12 + 30 = ")
    broken = misbehaving(lambda call: torch.full_like(call.logits, torch.nan))
    assert {(one.token_score, one.order_score) for one in verify_forced(broken, golden).divergent[:3]} == {(MOST, MOST)}


def test_every_divergent_step_is_reported_with_how_far_it_is_off(reference_model: LoadedModel) -> None:
    golden = recorded(reference_model, PADDED, temperature=0.9, seed=8)

    def scale(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return output * 1.5

    with reference_model.model.get_submodule("model.transformer.blocks.3").register_forward_hook(scale):
        verdict = verify_forced(reference_model, golden)
        alone = verify_forced(reference_model, golden, batch=1)
    assert len(verdict.divergent) > 5
    assert verdict.divergent == alone.divergent
    assert all(one.exact for one in verdict.divergent)
    for one in verdict.divergent:
        assert one.divergence is not None
        assert (one.divergence.step, one.divergence.sequence) == (one.step, one.sequence)
        assert one.token_score > 0 or one.order_score > 0
    agreeing = [one for one in verdict.scored if one.divergence is None]
    assert {(one.token_score, one.order_score) for one in agreeing if one.exact} == {(0.0, 0.0)}
    assert max(max(one.token_score, one.order_score) for one in agreeing) < 1e-3
