"""What a batch changes is scored again as it was recorded; a batch that does not fit is halved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from difftrace.core.forced import ForcedVerdict
from difftrace.core.recording import Baseline
from difftrace.models import LoadedModel, load_model
from difftrace.models.reference import reference_model_path
from difftrace.verification import ModelRunner
from difftrace.verification.forced import verify_forced, verify_sampled

GENERATED = 12


@pytest.fixture(scope="module")
def golden(reference_model: LoadedModel) -> Baseline:
    """One sequence that commits a position at each of its steps."""
    return ModelRunner(reference_model).generate("12 + 30 = ", gen_length=GENERATED, steps=GENERATED).to_baseline(None)


@pytest.fixture(scope="module")
def padded(reference_model: LoadedModel) -> Baseline:
    """Three sequences."""
    prompts = ["7 + 5 = ", "sort 9 2: ", "4 + 4 = "]
    return ModelRunner(reference_model).generate(prompts, gen_length=8, steps=8).to_baseline(None)


@pytest.fixture
def turning(misbehaving: Callable[..., LoadedModel], reference_model: LoadedModel) -> Callable[..., LoadedModel]:
    """Make a model that takes an unlikely token at some steps: alone, in a batch, or both."""
    mask_id = reference_model.config.mask_token_id

    def make(alone: set[int], batched: set[int]) -> LoadedModel:
        def turn(call: Any) -> Tensor:
            steps = GENERATED - (call.ids == mask_id).sum(-1)
            turned = alone if len(call.ids) == 1 else batched
            rows = torch.tensor([int(step) in turned for step in steps])
            return torch.where(rows[:, None, None], -call.logits, call.logits)

        return misbehaving(turn)

    return make


def steps_of(verdict: ForcedVerdict) -> list[int]:
    return [one.step for one in verdict.divergent]


def test_what_differs_in_a_batch_only_is_no_divergence(turning: Callable[..., LoadedModel], golden: Baseline) -> None:
    verdict = verify_forced(turning(alone=set(), batched={2, 7}), golden, batch=4)
    assert verdict.same
    assert verdict.rescored == 2
    assert [one.step for one in verdict.scored if one.exact] == [2, 7]
    assert not verdict.exact


def test_the_first_divergence_is_exact_even_where_the_batch_hid_it(
    turning: Callable[..., LoadedModel], golden: Baseline
) -> None:
    verdict = verify_forced(turning(alone={3, 5, 8}, batched={1, 8, 10}), golden, batch=4)
    assert verdict.first is not None
    assert verdict.first.step == 3
    # 5 agreed in its batch and comes after the first, so that nothing calls it in doubt; 0 to 3, 8 and 10 were.
    assert steps_of(verdict) == [3, 8]
    assert verdict.rescored == 6
    assert all(one.exact for one in verdict.divergent)


def test_scored_alone_nothing_is_hidden(turning: Callable[..., LoadedModel], golden: Baseline) -> None:
    verdict = verify_forced(turning(alone={3, 5, 8}, batched=set()), golden, batch=1)
    assert (steps_of(verdict), verdict.rescored, verdict.exact) == ([3, 5, 8], 0, True)


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 64])
def test_the_divergent_steps_do_not_depend_on_the_batch(
    turning: Callable[..., LoadedModel], golden: Baseline, batch: int
) -> None:
    verdict = verify_forced(turning(alone={0, 4, 11}, batched={0, 4, 11}), golden, batch=batch)
    assert steps_of(verdict) == [0, 4, 11]


def test_batches_are_of_equal_size_and_hold_all_sequences(
    misbehaving: Callable[..., LoadedModel], padded: Baseline
) -> None:
    rows: list[int] = []

    def keep(call: Any) -> Tensor:
        rows.append(len(call.ids))
        return call.logits

    verdict = verify_forced(misbehaving(keep), padded, batch=5)
    assert rows == [4 * 3, 4 * 3]
    assert verdict.batch == 4
    assert verify_forced(misbehaving(keep), padded, batch=1).exact
    assert rows[2:] == [3] * 8


def test_a_canvas_that_several_steps_see_is_scored_once(
    reference_model: LoadedModel, misbehaving: Callable[..., LoadedModel]
) -> None:
    runner = ModelRunner(reference_model)
    idle = runner.generate(["7 + 5 = ", "9 + 9 = "], gen_length=8, steps=30, block_length=4).to_baseline(None)
    counted = misbehaving()
    verdict = verify_forced(counted, idle, batch=1)
    # The canvases of 8 commits; the last is followed by steps that see the final one.
    assert counted.model.calls == 9  # type: ignore[attr-defined]
    assert (verdict.same, verdict.exact, len(verdict.scored)) == (True, True, 60)


def limited(misbehaving: Callable[..., LoadedModel], most: int, error: Callable[[], Any]) -> LoadedModel:
    """A model for which memory suffices for no more than `most` rows."""

    def fit(call: Any) -> Tensor:
        if len(call.ids) > most:
            error()
        return call.logits

    return misbehaving(fit)


def accelerator_full() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def host_full() -> None:
    torch.empty(2**60)


@pytest.mark.parametrize("error", [accelerator_full, host_full])
def test_a_batch_that_memory_does_not_suffice_for_is_halved(
    misbehaving: Callable[..., LoadedModel], golden: Baseline, error: Callable[[], Any]
) -> None:
    verdict = verify_forced(limited(misbehaving, 3, error), golden, batch=GENERATED)
    assert verdict.same
    assert verdict.steps == tuple(range(GENERATED))
    assert verdict.batch == 3


def test_what_does_not_fit_as_it_was_recorded_is_an_error(
    misbehaving: Callable[..., LoadedModel], golden: Baseline
) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        verify_forced(limited(misbehaving, 0, accelerator_full), golden)


def test_other_errors_of_the_model_are_not_taken_for_full_memory(
    misbehaving: Callable[..., LoadedModel], golden: Baseline
) -> None:
    def shapes() -> None:
        torch.zeros(2) + torch.zeros(3)

    with pytest.raises(RuntimeError, match="must match the size"):
        verify_forced(limited(misbehaving, 1, shapes), golden)


def test_the_verdict_says_what_it_rests_on(turning: Callable[..., LoadedModel], golden: Baseline) -> None:
    loaded = turning(alone=set(), batched={2})
    assert verify_forced(loaded, golden, batch=1).basis == "12 of 12 steps; each was scored exactly as recorded"
    assert verify_forced(loaded, golden, batch=4).basis == (
        "12 of 12 steps; up to 4 canvases were scored at once, which can change last bits: logits are compared by"
        " budget, not bit for bit. What differed was scored again exactly as recorded (steps so scored: 1)"
    )
    assert verify_sampled(loaded, golden, count=3, seed=5).basis.startswith(
        "3 of 12 steps at random (seed 5): a fault that shows in at least 7 of 12 steps is caught with 95 %, one that"
        " shows in a single step with 25 %; up to 3 canvases were scored at once"
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm device")
@pytest.mark.parametrize("noise", [{}, {"temperature": 0.9, "noise": "upstream"}])
def test_a_clean_run_of_a_device_agrees_there(noise: dict[str, Any]) -> None:
    loaded = load_model(reference_model_path(), device="cuda")
    golden = (
        ModelRunner(loaded).generate(["7 + 5 = ", "sort 9 2: "], gen_length=16, steps=16, **noise).to_baseline(None)
    )
    for batch in (None, 1, 4):
        assert verify_forced(loaded, golden, batch=batch).same
