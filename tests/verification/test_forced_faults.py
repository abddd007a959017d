"""Faults of the model and of the sampler show first where a rerun shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from difftrace.core.comparison import Divergence, compare_sequences
from difftrace.core.recording import Baseline
from difftrace.models import LoadedModel
from difftrace.sampling import SamplerArguments, decision, noise
from difftrace.verification import ModelRunner
from difftrace.verification.forced import verify_forced
from difftrace.verification.recorded import run_again

PADDED = ["7 + 5 = ", "sort 9 2 7 4: ", "reverse lamp: "]
PROMPTS = ["12 + 30 = ", "reverse stone: ", "sort 3 1 2: ", "9 + 9 = "]

SETTINGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "greedy": ("12 + 30 = ", {}),
    "several a step": ("reverse stone: ", {"steps": 6, "block_length": 16}),
    "blocks of unequal quotas": ("sort 9 2 7 4: ", {"steps": 6, "block_length": 8}),
    "empty steps": ("reverse lamp: ", {"steps": 24, "block_length": 8}),
    "padding": (PADDED, {"block_length": 8}),
    "topk": (PADDED, {"tie_break": "upstream", "steps": 6, "block_length": 8}),
}


def recorded(loaded: LoadedModel, prompt: Any, **settings: Any) -> Baseline:
    return ModelRunner(loaded).generate(prompt, **{"gen_length": 16, "steps": 16, **settings}).to_baseline(None)


def rerun(loaded: LoadedModel, golden: Baseline) -> Divergence | None:
    return compare_sequences([record.trajectory for record in golden.sequences], run_again(loaded, golden))


def found_by(loaded: LoadedModel, golden: Baseline) -> Divergence:
    """What a rerun and forced verification both find."""
    found = rerun(loaded, golden)
    assert found is not None
    for batch in (None, 1):
        verdict = verify_forced(loaded, golden, batch=batch)
        assert verdict.first == found, batch
        assert not verdict.same
    return found


@contextmanager
def scaled(model: nn.Module, factor: float) -> Iterator[None]:
    def scale(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return output * factor

    with model.get_submodule("model.transformer.blocks.3").register_forward_hook(scale):
        yield


@contextmanager
def altered_weight(model: nn.Module, by: float) -> Iterator[None]:
    weight = model.get_submodule("model.transformer.blocks.2.q_proj").weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight[:, 4] += by
    yield
    with torch.no_grad():
        weight.copy_(before)


@contextmanager
def altered_eps(model: nn.Module, eps: float) -> Iterator[None]:
    norms = [module for module in model.modules() if hasattr(module, "eps")]
    before = [norm.eps for norm in norms]
    for norm in norms:
        norm.eps = eps  # type: ignore[assignment]
    yield
    for norm, value in zip(norms, before, strict=True):
        norm.eps = value


MODEL_FAULTS: dict[str, Callable[[nn.Module], Any]] = {
    "a layer scaled by 1.01": lambda model: scaled(model, 1.01),
    "a layer scaled by 1.5": lambda model: scaled(model, 1.5),
    "a layer scaled by -1": lambda model: scaled(model, -1.0),
    "one weight a little off": lambda model: altered_weight(model, 0.02),
    "one weight far off": lambda model: altered_weight(model, 3.0),
    "a wrong epsilon": lambda model: altered_eps(model, 0.5),
}
# They show in no decision of these prompts, so nothing may be found.
SMALL = ("a layer scaled by 1.01", "one weight a little off")


@pytest.fixture(scope="module")
def goldens(reference_model: LoadedModel) -> list[Baseline]:
    """Prompts of every kind, greedy and drawn: noise keeps decisions close, so that smaller faults show."""
    noisy = {"temperature": 0.9, "noise": "upstream", "seed": 8}
    return [
        recorded(reference_model, prompt, **how)
        for prompt, how in zip((*PROMPTS, PADDED), ({}, noisy, {}, noisy, noisy), strict=True)
    ]


@pytest.mark.parametrize("fault", MODEL_FAULTS)
def test_a_fault_of_the_model_shows_first_where_a_rerun_shows_it(
    reference_model: LoadedModel, goldens: list[Baseline], fault: str
) -> None:
    with MODEL_FAULTS[fault](reference_model.model):
        for golden in goldens:
            assert verify_forced(reference_model, golden).first == rerun(reference_model, golden)


@pytest.mark.parametrize("fault", [fault for fault in MODEL_FAULTS if fault not in SMALL])
def test_the_faults_are_large_enough_to_show(reference_model: LoadedModel, goldens: list[Baseline], fault: str) -> None:
    with MODEL_FAULTS[fault](reference_model.model):
        assert any(rerun(reference_model, golden) for golden in goldens)


def select_lowest(confidence: Tensor, count: int) -> Tensor:
    return torch.sort(confidence.masked_fill(confidence == -torch.inf, torch.inf), dim=-1, stable=True)[1][:, :count]


def select_rightmost(confidence: Tensor, count: int) -> Tensor:
    """The highest, but of equals the rightmost."""
    backwards = torch.sort(confidence.flip(-1), dim=-1, descending=True, stable=True)[1]
    return confidence.shape[-1] - 1 - backwards[:, :count]


def select_one_more(confidence: Tensor, count: int) -> Tensor:
    return decision.select_stable(confidence, count + 1)


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "topk"])
@pytest.mark.parametrize("select", [select_lowest, select_one_more])
def test_a_selection_that_chooses_wrongly_is_found(
    reference_model: LoadedModel, monkeypatch: pytest.MonkeyPatch, name: str, select: decision.Select
) -> None:
    prompt, settings = SETTINGS[name]
    golden = recorded(reference_model, prompt, **settings)
    monkeypatch.setitem(decision.SELECT, "stable", select)
    assert found_by(reference_model, golden).step == 0


def test_a_selection_that_never_commits_nothing_is_found(
    reference_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = recorded(reference_model, "7 + 5 = ", steps=40, block_length=8)
    monkeypatch.setitem(
        decision.SELECT, "stable", lambda confidence, count: decision.select_stable(confidence, max(count, 1))
    )
    assert found_by(reference_model, golden).step == 8


@pytest.fixture
def tied(misbehaving: Callable[..., LoadedModel]) -> LoadedModel:
    """A model to which all positions but the third generated one are alike."""

    def score(call: Any) -> Tensor:
        logits = torch.zeros_like(call.logits)
        logits[..., 7] = 4.0
        logits[..., -6, 7] = 5.0
        return logits

    return misbehaving(score)


def test_ties_broken_otherwise_are_found_and_cost_nothing(tied: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = recorded(tied, [5, 6, 7], gen_length=8, steps=8)
    monkeypatch.setitem(decision.SELECT, "stable", select_rightmost)
    found = found_by(tied, golden)
    # The first step has no tie; at the second the golden took the leftmost, and the rightmost is as good.
    assert (found.step, found.position, found.golden, found.observed) == (1, 3, 7, None)
    verdict = verify_forced(tied, golden)
    assert [one.step for one in verdict.divergent] == [1, 2, 3, 4, 5, 6]
    assert {(one.token_score, one.order_score) for one in verdict.divergent} == {(0.0, 0.0)}


def test_quotas_that_are_off_by_one_are_found(reference_model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    goldens = [
        recorded(reference_model, prompt, **settings)
        for prompt, settings in (SETTINGS["blocks of unequal quotas"], SETTINGS["empty steps"], SETTINGS["topk"])
    ]
    quotas = SamplerArguments.quotas
    # What is left over goes to the late steps instead of the early ones.
    monkeypatch.setattr(SamplerArguments, "quotas", lambda self: tuple(reversed(quotas(self))))
    for golden in goldens:
        found_by(reference_model, golden)


def test_a_canvas_that_is_ahead_of_the_schedule_never_shows_commits_outside_it(
    reference_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = recorded(reference_model, "12 + 30 = ", gen_length=4, steps=4)
    monkeypatch.setattr(SamplerArguments, "quotas", lambda self: (0, 0, 2, 2))
    verdict = verify_forced(reference_model, golden)
    prompt = golden.sequences[0].trajectory.length - 4
    differing = {one.step: one.divergence for one in verdict.divergent}
    assert set(differing) == {0, 1, 2}
    for divergence in differing.values():
        assert divergence is not None
        assert divergence.position is not None
        assert divergence.position >= prompt


SAMPLER_FAULTS: dict[str, tuple[Any, str, Any, dict[str, Any]]] = {
    "confidence of the runner-up": (
        decision,
        "confidence_of",
        lambda logits, tokens: 1 - torch.softmax(logits, dim=-1).amax(-1),
        {},
    ),
    "noise without temperature": (decision, "gumbel", lambda logits, temperature, uniform: logits.double(), {}),
    "guidance that forgets the prompt": (
        decision,
        "guide",
        lambda logits, scale: logits.chunk(2)[1],
        {"cfg_scale": 1.0},
    ),
    "noise of other positions": (noise, "_positions", lambda canvas, mask: torch.zeros_like(canvas), {}),
    "noise of another seed": (noise, "philox", lambda counter, key: REAL_PHILOX(counter, (key[0] + 1, key[1])), {}),
}
REAL_PHILOX = noise.philox


@pytest.mark.parametrize("fault", SAMPLER_FAULTS)
def test_a_fault_of_the_sampler_is_found_where_a_rerun_finds_it(
    reference_model: LoadedModel, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    module, name, replacement, settings = SAMPLER_FAULTS[fault]
    goldens = [
        recorded(reference_model, prompt, **{"temperature": 1.0, "seed": 2, **settings})
        for prompt in (PADDED, PROMPTS[1])
    ]
    monkeypatch.setattr(module, name, replacement)
    for golden in goldens:
        found_by(reference_model, golden)
