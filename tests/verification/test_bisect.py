"""The altered module is the one that is named: for weights, code and noise, here and in another environment."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from difftrace.core.bisection import Bisection
from difftrace.core.errors import BisectionError
from difftrace.core.module_difference import ModuleFinding, Point
from difftrace.core.module_trace import GoldenLayers
from difftrace.core.recording import Baseline
from difftrace.determinism.digest import digest
from difftrace.models import LoadedModel, load_model
from difftrace.models.reference import reference_model_path
from difftrace.reports.bisection import finding_lines
from difftrace.verification import ModelRunner
from difftrace.verification.bisect import bisect, bisect_models, golden_layers
from difftrace.verification.probe_steps import golden_probes

STEP = 5
TRANSFORMER = "model.transformer"

# One element of each kind of module that the canvas makes use of; token 0 is the mask.
ALTERED = {
    f"{TRANSFORMER}.wte": (0, 3),
    f"{TRANSFORMER}.blocks.2.q_proj": (3, 4),
    f"{TRANSFORMER}.blocks.3.attn_norm": (5,),
    f"{TRANSFORMER}.blocks.4.ff_proj": (7, 2),
    f"{TRANSFORMER}.ff_out": (22, 9),
}


@pytest.fixture(scope="module")
def baseline(reference_model: LoadedModel) -> Baseline:
    run = ModelRunner(reference_model).generate("12 + 30 = ", gen_length=16, steps=16, block_length=8)
    return run.to_baseline(None)


@pytest.fixture(scope="module")
def golden(reference_model: LoadedModel, baseline: Baseline) -> GoldenLayers:
    return golden_layers(reference_model, baseline, STEP)


@pytest.fixture
def live() -> LoadedModel:
    """The same model, of its own, to be altered."""
    return load_model(reference_model_path(), device="cpu")


def alter(loaded: LoadedModel, name: str, by: float = 1e-3) -> None:
    with torch.no_grad():
        loaded.model.get_submodule(name).weight[ALTERED[name]] += by


def against(found: Bisection) -> ModuleFinding:
    assert found.against is not None
    assert found.against.finding is not None
    return found.against.finding


def repeat(found: Bisection) -> ModuleFinding:
    assert found.repeat is not None
    return found.repeat


@contextmanager
def patched(name: str, function: Any) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional, name, function)
        yield


@pytest.mark.parametrize("name", ALTERED)
def test_one_changed_weight_names_its_module(
    live: LoadedModel, baseline: Baseline, golden: GoldenLayers, name: str
) -> None:
    alter(live, name)
    found = bisect(live, baseline, golden=golden)
    finding = against(found)
    assert (found.verdict, found.same_environment, found.differs) == ("difference", True, True)
    assert (finding.kind, finding.module) == ("parameters", name)
    assert [pair.name for pair in finding.changed] == [f"{name}.weight"]
    assert finding.changed[0].observed == digest(live.model.get_submodule(name).weight)
    assert finding.error_before == 0.0
    assert finding.error_after is not None
    assert 0 < finding.error_after < 1e-2


@pytest.mark.parametrize("name", ALTERED)
def test_one_module_that_computes_something_else_with_the_same_weights_is_named(
    live: LoadedModel, baseline: Baseline, golden: GoldenLayers, name: str
) -> None:
    with live.model.get_submodule(name).register_forward_hook(lambda _module, _args, out: out * (1 + 1e-6)):
        found = bisect(live, baseline, golden=golden)
    finding = against(found)
    assert (found.verdict, finding.kind, finding.module) == ("difference", "module", name)
    assert [pair.equal for pair in finding.state] == [True]
    assert finding.changed == ()


def test_the_same_model_does_not_differ(reference_model: LoadedModel, baseline: Baseline, golden: GoldenLayers) -> None:
    found = bisect(reference_model, baseline, golden=golden)
    assert (found.verdict, found.differs, found.decisions) == ("no difference", False, "agree")
    assert (found.step_choice, found.origin.step) == ("of the golden trace", STEP)
    assert found.changed_identity == ()


def test_attention_that_computes_something_else_is_between_the_modules_around_it(
    live: LoadedModel, baseline: Baseline, golden: GoldenLayers
) -> None:
    attention = functional.scaled_dot_product_attention
    with patched("scaled_dot_product_attention", lambda q, k, v, **more: attention(q * 1.001, k, v, **more)):
        finding = against(bisect(live, baseline, golden=golden))
    block = f"{TRANSFORMER}.blocks.0"
    assert (finding.kind, finding.module, finding.class_name) == ("between modules", block, "Block")
    assert (finding.after, finding.before) == (Point(f"{block}.v_proj", "output"), Point(f"{block}.attn_out", "input"))
    assert finding.state == ()


def test_an_activation_that_computes_something_else_is_between_the_modules_around_it(
    live: LoadedModel, baseline: Baseline, golden: GoldenLayers
) -> None:
    with patched("silu", functional.gelu):
        finding = against(bisect(live, baseline, golden=golden))
    block = f"{TRANSFORMER}.blocks.0"
    assert (finding.kind, finding.module) == ("between modules", block)
    assert (finding.after, finding.before) == (Point(f"{block}.up_proj", "output"), Point(f"{block}.ff_out", "input"))


def test_tables_that_are_no_module_are_between_the_modules_around_them(
    live: LoadedModel, baseline: Baseline, golden: GoldenLayers
) -> None:
    live.model.model.transformer.rotary._theta = 10001.0
    finding = against(bisect(live, baseline, golden=golden))
    assert (finding.kind, finding.module) == ("between modules", TRANSFORMER)
    assert (finding.after, finding.before) == (
        Point(f"{TRANSFORMER}.wte", "output"), Point(f"{TRANSFORMER}.blocks.0", "input"),
    )  # fmt: skip


def _with_nan(_module: object, _given: object, returned: Tensor) -> Tensor:
    returned = returned.clone()
    returned[0, -1, 0] = torch.nan
    return returned


def test_the_layer_that_returns_the_first_nan_is_named_without_a_golden_side(
    live: LoadedModel, baseline: Baseline
) -> None:
    name = f"{TRANSFORMER}.blocks.3.v_proj"
    with live.model.get_submodule(name).register_forward_hook(_with_nan):
        found = bisect(live, baseline)
    first = found.non_finite
    assert first is not None
    assert (first.module, first.class_name, first.after) == (name, "Linear", None)
    assert (first.non_finite, first.in_golden) == (1, False)
    assert (found.verdict, found.differs) == ("repeatable", True)
    assert finding_lines(found)[:2] == [
        f"NON_FINITE: NaN or infinite values begin in {name} (Linear)",
        f"  it was given finite values and returned 1 of {first.values} that are NaN or infinite",
    ]


def test_a_nan_is_found_where_nothing_of_a_golden_canvas_was_asked_but_its_step(
    live: LoadedModel, baseline: Baseline
) -> None:
    bare = replace(baseline, sequences=tuple(replace(one, evidence=None) for one in baseline.sequences))
    with live.model.get_submodule(f"{TRANSFORMER}.wte").register_forward_hook(_with_nan):
        found = bisect(live, baseline, step=STEP)
        with pytest.raises(BisectionError, match="are NaN or infinite, 0 were"):
            golden_layers(live, baseline, STEP)
        broken = golden_layers(live, bare, STEP)
        both = bisect(live, baseline, golden=broken)
    assert found.non_finite is not None
    assert (found.non_finite.module, found.decisions, found.differs) == (f"{TRANSFORMER}.wte", "not compared", True)
    # What the golden run has too is told, and is no difference.
    assert both.non_finite is not None
    assert (both.verdict, both.non_finite.in_golden) == ("no difference", True)
    with live.model.get_submodule(f"{TRANSFORMER}.wte").register_forward_hook(_with_nan):
        unknown = bisect(live, bare, step=STEP).non_finite
    assert unknown is not None
    assert unknown.in_golden is None


def test_a_model_with_other_logits_than_the_golden_run_makes_no_golden_side(
    live: LoadedModel, baseline: Baseline
) -> None:
    """Also where it decides as the golden does: else a faulty model would be what later ones are compared with."""
    elsewhere = replace(baseline, environment={**baseline.environment, "threads": 7})

    def scale(factor: float) -> Any:
        hook = live.model.get_submodule(f"{TRANSFORMER}.blocks.1").register_forward_hook
        return hook(lambda _module, _args, out: out * factor)

    with scale(1.001):
        for make in (golden_layers, lambda *given: golden_probes(*given[:2], [given[2]])):
            with pytest.raises(BisectionError, match=r"logits of model reference are not .*every bit should be equal"):
                make(live, baseline, STEP)
            with pytest.raises(BisectionError, match=r"root mean square of [\d.]+, and the budget is 2.7e-05\. What"):
                make(live, elsewhere, STEP)
    with scale(1 + 2**-22):
        with pytest.raises(BisectionError, match="every bit should be equal"):
            golden_layers(live, baseline, STEP)
        # Where bits may differ, as much does not speak against it.
        assert golden_layers(live, elsewhere, STEP).origin.step == STEP
        assert [one.origin.step for one in golden_probes(live, elsewhere, [STEP])] == [STEP]


def test_a_sound_model_has_no_first_nan(reference_model: LoadedModel, baseline: Baseline) -> None:
    assert bisect(reference_model, baseline, step=STEP).non_finite is None


def test_noise_in_one_layer_is_run_to_run_there(live: LoadedModel, baseline: Baseline, golden: GoldenLayers) -> None:
    name, calls = f"{TRANSFORMER}.blocks.3.v_proj", itertools.count()

    def disturb(_module: nn.Module, _args: object, out: Tensor) -> Tensor:
        return out * (1 + 1e-6 * next(calls))

    with live.model.get_submodule(name).register_forward_hook(disturb):
        found = bisect(live, baseline, golden=golden)
        with pytest.raises(BisectionError, match=rf"does not repeat itself .*RUN_TO_RUN, first in {name}, Linear"):
            golden_layers(live, baseline, STEP)
        with pytest.raises(BisectionError, match="model reference does not repeat itself"):
            bisect_models(lambda: load_model(reference_model_path(), device="cpu"), lambda: live, baseline, step=0)
    assert (found.verdict, found.differs) == ("run-to-run", True)
    assert (repeat(found).kind, repeat(found).module) == ("module", name)
    assert not found.draws_random_numbers


def test_dropout_left_on_is_run_to_run_there_although_the_seed_is_fixed(live: LoadedModel, baseline: Baseline) -> None:
    block = live.model.model.transformer.blocks[1]
    block.ff_norm = nn.Sequential(block.ff_norm, nn.Dropout(0.1))
    found = bisect(live, baseline, step=0)
    assert repeat(found).module == f"{TRANSFORMER}.blocks.1.ff_norm.1"
    assert repeat(found).class_name == "Dropout"
    assert found.draws_random_numbers


def test_functional_dropout_is_run_to_run_in_the_module_that_uses_it(live: LoadedModel, baseline: Baseline) -> None:
    with patched("silu", functional.dropout):
        found = bisect(live, baseline, step=0)
    block = f"{TRANSFORMER}.blocks.0"
    assert (repeat(found).kind, repeat(found).module) == ("between modules", block)
    assert repeat(found).before == Point(f"{block}.ff_out", "input")


def test_without_a_golden_side_the_first_divergent_step_is_looked_at(live: LoadedModel, baseline: Baseline) -> None:
    alter(live, f"{TRANSFORMER}.ff_out", by=50.0)
    found = bisect(live, baseline)
    assert found.divergence is not None
    assert (found.step_choice, found.decisions) == ("first divergent", "diverge")
    assert found.origin.step == found.divergence.step
    assert (found.verdict, found.differs, found.against) == ("repeatable", True, None)


def test_of_one_sequence_it_is_the_first_step_at_which_that_one_diverges(
    live: LoadedModel, reference_model: LoadedModel
) -> None:
    run = ModelRunner(reference_model).generate(["1 + 2 = ", "12 + 30 = "], gen_length=8, steps=8)
    batch = run.to_baseline(None)
    # The model is spoilt for canvases that hold padding at their start, which the second does not.
    pad = int(batch.sequences[0].trajectory.initial[0])

    def spoil(_module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        padded = (args[0][:, :1] == pad).unsqueeze(-1)
        return out + 30.0 * padded * torch.sin(torch.arange(out[0].numel()).view(out[0].shape) ** 2.0)

    with live.model.model.transformer.wte.register_forward_hook(spoil):
        first, second = bisect(live, batch, sequence=0), bisect(live, batch, sequence=1)
        whole = bisect(live, batch)
    assert first.divergence is not None
    assert first.divergence == whole.divergence
    assert (first.divergence.sequence, first.origin.sequence) == (0, 0)
    assert (second.decisions, second.step_choice) == ("agree", "none diverges")


def test_without_a_divergent_step_it_is_the_first_step_and_nothing_differs(
    reference_model: LoadedModel, baseline: Baseline
) -> None:
    found = bisect(reference_model, baseline)
    assert (found.step_choice, found.origin.step, found.decisions) == ("none diverges", 0, "agree")
    assert (found.verdict, found.differs) == ("repeatable", False)


def test_a_divergence_that_the_golden_step_does_not_show_is_told(
    live: LoadedModel, baseline: Baseline, reference_model: LoadedModel
) -> None:
    # A module that answers to a token which the first canvas does not hold.
    trajectory = baseline.sequences[0].trajectory
    token = int(trajectory.tokens[0])
    assert token not in trajectory.canvas(0)
    first = golden_layers(reference_model, baseline, 0)

    def spoil(_module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        return out + 30.0 * (args[0] == token).any() * torch.sin(torch.arange(out.numel()).view(out.shape) ** 2.0)

    with live.model.model.transformer.wte.register_forward_hook(spoil):
        found = bisect(live, baseline, golden=first)
    assert (found.verdict, found.decisions, found.differs) == ("no difference", "diverge", True)
    assert found.divergence is not None
    assert found.divergence.step is not None
    assert found.divergence.step > 0


def test_another_dtype_is_another_environment_in_which_nothing_stands_out(
    baseline: Baseline, golden: GoldenLayers
) -> None:
    narrow = load_model(reference_model_path(), device="cpu", dtype="bfloat16")
    found = bisect(narrow, baseline, golden=golden)
    assert (found.verdict, found.same_environment) == ("difference", False)
    assert found.changed_weights == ()
    assert found.largest_gain is None
    assert found.against is not None
    gains = [gain.gain for gain in found.against.gains]
    assert gains == sorted(gains, reverse=True)
    assert 1 < gains[0] < 4


def test_in_another_dtype_the_part_in_which_the_error_grows_most_is_named(
    baseline: Baseline, golden: GoldenLayers
) -> None:
    narrow = load_model(reference_model_path(), device="cpu", dtype="bfloat16")
    attention, calls = functional.scaled_dot_product_attention, itertools.count()

    def third_sharper(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Tensor:
        return attention(q * 1.2 if next(calls) % 6 == 2 else q, k, v, **more)

    with patched("scaled_dot_product_attention", third_sharper):
        found = bisect(narrow, baseline, golden=golden)
    block = f"{TRANSFORMER}.blocks.2"
    gain = found.largest_gain
    assert gain is not None
    assert (gain.module, gain.after, gain.before) == (
        block, Point(f"{block}.v_proj", "output"), Point(f"{block}.attn_out", "input"),
    )  # fmt: skip
    assert gain.error_after > 5 * gain.error_before


def test_in_another_dtype_a_changed_weight_is_still_told_from_rounding(
    baseline: Baseline, golden: GoldenLayers
) -> None:
    narrow = load_model(reference_model_path(), device="cpu", dtype="bfloat16")
    name = f"{TRANSFORMER}.blocks.4.ff_proj"
    alter(narrow, name, by=0.125)
    assert [pair.name for pair in bisect(narrow, baseline, golden=golden).changed_weights] == [f"{name}.weight"]


def test_two_models_are_compared_one_after_the_other(
    live: LoadedModel, reference_model: LoadedModel, baseline: Baseline
) -> None:
    alter(live, f"{TRANSFORMER}.ff_out")
    found = bisect_models(lambda: live, lambda: reference_model, baseline, step=3)
    assert (against(found).kind, against(found).module) == ("parameters", f"{TRANSFORMER}.ff_out")
    assert found.against is not None
    assert (found.against.file, found.origin.step, found.step_choice) == (None, 3, "given")


def test_a_model_that_does_not_repeat_itself_is_compared_with_no_other(live: LoadedModel, baseline: Baseline) -> None:
    def load_golden() -> LoadedModel:
        raise AssertionError("not needed")

    with patched("silu", functional.dropout):
        found = bisect_models(lambda: live, load_golden, baseline, step=0)
    assert (found.verdict, found.against) == ("run-to-run", None)


def test_a_sampler_that_changed_leaves_the_model_without_difference(
    reference_model: LoadedModel, baseline: Baseline
) -> None:
    assert baseline.sampler is not None
    changed = replace(
        baseline, sampler=replace(baseline.sampler, arguments={**baseline.sampler.arguments, "block_length": 16})
    )
    found = bisect_models(lambda: reference_model, lambda: reference_model, changed)
    assert (found.verdict, found.decisions, found.differs) == ("no difference", "diverge", True)


def test_a_whole_batch_under_guidance_is_looked_at_as_it_was_recorded(
    live: LoadedModel, reference_model: LoadedModel
) -> None:
    run = ModelRunner(reference_model).generate(["1 + 2 = ", "12 + 30 = "], gen_length=8, steps=4, cfg_scale=1.0)
    batch = run.to_baseline(None)
    layers = golden_layers(reference_model, batch, 2)
    assert layers.trace.tensors[layers.trace.calls[0].inputs[0]].shape == (4, 18)
    alone = golden_layers(reference_model, batch, 2, sequence=1)
    assert alone.trace.tensors[alone.trace.calls[0].inputs[0]].shape == (2, 18)
    name = f"{TRANSFORMER}.blocks.3.attn_norm"
    alter(live, name)
    assert against(bisect(live, batch, golden=layers)).module == name
    assert against(bisect(live, batch, golden=alone)).module == name


def test_the_stored_model_is_held_against_the_baselines(baseline: Baseline) -> None:
    assert baseline.model is not None
    other = replace(baseline, model=replace(baseline.model, weights="sha256:" + "0" * 64))
    reference = load_model(reference_model_path(), device="cpu")
    found = bisect(reference, other, step=0)
    assert (found.verdict, found.changed_identity, found.differs) == ("repeatable", ("weights",), True)
    with pytest.raises(BisectionError, match=r"is not the one that the baseline was recorded with: other weights$"):
        golden_layers(reference, other, 0)


def test_a_golden_trace_of_something_else_is_refused(
    reference_model: LoadedModel, baseline: Baseline, golden: GoldenLayers
) -> None:
    other = ModelRunner(reference_model).generate("1 + 1 = ", gen_length=8, steps=8).to_baseline(None)
    with pytest.raises(BisectionError, match="the golden trace was made from another baseline"):
        bisect(reference_model, other, golden=golden)
    with pytest.raises(BisectionError, match="the golden trace is of step 5, not of step 3; drop --step"):
        bisect(reference_model, baseline, golden=golden, step=3)
    with pytest.raises(BisectionError, match="the golden trace is of all sequences, not of sequence 0; drop --seq"):
        bisect(reference_model, baseline, golden=golden, sequence=0)


def test_the_settings_and_the_model_are_as_before(live: LoadedModel, baseline: Baseline) -> None:
    before, weights = torch.get_rng_state(), digest(live.model)
    bisect(live, baseline, step=0)
    assert torch.get_rng_state().equal(before)
    assert not torch.are_deterministic_algorithms_enabled()
    assert digest(live.model) == weights
