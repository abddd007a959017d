"""Every engine's calling pattern is recorded as what its loop did, by the adapter for it and by the general one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import difftrace
from difftrace.capture import Captured
from difftrace.core.errors import CaptureError
from loops import dinfer, dream, sglang, vllm_plugin
from loops.cases import CASES, PROMPT, Case
from loops.model import MASK, TinyDenoiser
from loops.truth import Event, Truth

# What the forwards alone do not tell: embeddings, requests that take turns, two calls a step on a growing canvas.
_NOT_BY_FORWARDS = ("llada embeddings", "vllm plugin", "vllm plugin, all that is sure", "dllm bd3lm with guidance")
# What is cut off the output, so that its last commits are known to nobody.
_CUT = ("llada2.0", "llada2.1 edits", "llada2.0 cut at its end", "dinfer stopped early")


def recorded(target: Any, engine: str, loop: Callable[[], Any]) -> Captured:
    torch.manual_seed(0)
    with difftrace.record(target, engine=engine, mask_id=MASK) as recorder:
        output = loop()
    return recorder.capture(output)


def events(captured: Captured) -> list[tuple[int, int, int, int]]:
    return sorted(
        (int(step), row, int(position), int(token))
        for row, found in enumerate(captured.trajectories)
        for step, position, token in zip(found.steps, found.positions, found.tokens, strict=True)
    )


def told(changes: list[Event]) -> list[tuple[int, int, int, int]]:
    return sorted((event.step, event.row, event.position, event.new) for event in changes)


def assert_same(captured: Captured, truth: Truth) -> None:
    assert events(captured) == told(truth.changes)
    assert [found.num_steps for found in captured.trajectories] == [truth.num_steps] * len(truth.initial)
    assert captured.verified
    for row, found in enumerate(captured.trajectories):
        assert np.array_equal(found.initial, truth.initial[row])
        assert np.array_equal(found.final, truth.final[row])


@pytest.mark.parametrize("case", [case for case in CASES if case.name not in _NOT_BY_FORWARDS], ids=lambda c: c.name)
def test_the_general_adapter_tells_what_each_forward_led_to(case: Case) -> None:
    model = case.model()
    truth = Truth(model)
    captured = recorded(model, "generic", lambda: case.run(model, truth))
    calls = [truth.forwards[event.step] - 1 for event in truth.changes]
    expected = [event._replace(step=call) for event, call in zip(truth.changes, calls, strict=True)]
    if case.name in _CUT:
        unknown = {(row, position) for row, found in enumerate(captured.unverified) for position in found}
        assert unknown
        last = model.calls - 1
        expected = [event for event in expected if (event.row, event.position) not in unknown or event.step < last]
        assert {event[1:3] for event in told(expected)} >= {event[1:3] for event in events(captured)}
    else:
        assert events(captured) == told(expected)
        assert captured.verified


def _of(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


@pytest.mark.parametrize("cache", ["", " prefix cache", " dual cache"])
@pytest.mark.parametrize("threshold", ["", " threshold"])
def test_fast_dllm_is_recorded_with_every_cache(cache: str, threshold: str) -> None:
    model = TinyDenoiser()
    truth = Truth(model)
    case = _of(f"fast-dllm{cache}{threshold}")
    assert_same(recorded(model, "fast_dllm", lambda: case.run(model, truth)), truth)


@pytest.mark.parametrize("name", [case.name for case in CASES if case.name.startswith("dream")])
def test_dream_is_recorded(name: str) -> None:
    model = dream.DreamModel()
    truth = Truth(model)
    captured = recorded(model, "dream", lambda: _of(name).run(model, truth))
    assert_same(captured, truth)


def test_what_a_hook_of_dreams_writes_belongs_to_the_step_before() -> None:
    def hook(step: int | None, canvas: torch.Tensor, logits: torch.Tensor | None) -> torch.Tensor:
        if step == 1:
            canvas[:, -1] = 7
        return canvas

    model = dream.DreamModel()
    model.truth = Truth(model)
    captured = recorded(model, "dream", lambda: model.diffusion_generate(PROMPT, generation_tokens_hook_func=hook))
    last = PROMPT.shape[1] + 11
    assert {event for event in events(captured) if event[2] == last} == {(1, row, last, 7) for row in (0, 1)}


@pytest.mark.parametrize("name", [case.name for case in CASES if case.name.startswith("dllm")])
def test_dllm_is_recorded_with_and_without_histories(name: str) -> None:
    model = TinyDenoiser()
    truth = Truth(model)
    assert_same(recorded(model, "dllm", lambda: _of(name).run(model, truth)), truth)


@pytest.mark.parametrize("cache", [None, "dual"])
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("decoder", [dinfer.ThresholdParallelDecoder, dinfer.HierarchyRemaskDecoder])
def test_dinfer_is_recorded_at_its_decoder(decoder: Any, rows: int, cache: str | None) -> None:
    model = TinyDenoiser()
    made = decoder(Truth(model))
    engine = dinfer.BlockWiseDiffusionLLM(model, made, cache=cache)
    captured = recorded(made, "auto", lambda: engine.generate(PROMPT[:rows]))
    assert_same(captured, made.truth)


@pytest.mark.parametrize("rows", [1, 2])
def test_ends_that_dinfer_fills_in_are_recorded(rows: int) -> None:
    model = _of("dinfer stopped early").model()
    made = dinfer.ThresholdParallelDecoder(Truth(model))
    engine = dinfer.BlockWiseDiffusionLLM(model, made)
    captured = recorded(made, "dinfer", lambda: engine.generate(PROMPT[:rows]))
    assert_same(captured, made.truth)


@pytest.mark.parametrize("algorithm", [sglang.LowConfidence, sglang.JointThreshold])
def test_sglang_is_recorded_at_its_algorithm(algorithm: Any) -> None:
    model = TinyDenoiser()
    made = algorithm(Truth(model))
    captured = recorded(made, "auto", lambda: sglang.serve(model, made, PROMPT))
    assert_same(captured, made.truth)


def test_sglangs_prompts_may_end_before_the_first_block() -> None:
    model = TinyDenoiser()
    made = sglang.LowConfidence(Truth(model))
    prompt = torch.arange(1, 17).view(1, 16)
    captured = recorded(made, "sglang", lambda: sglang.serve(model, made, prompt))
    (found,) = captured.trajectories
    assert np.array_equal(found.final, made.truth.final[0, 16:])


def test_rows_that_leave_sglangs_batch_are_refused() -> None:
    made = sglang.LowConfidence(Truth(TinyDenoiser()))
    made.fdfo = True
    with pytest.raises(CaptureError, match="--dllm-fdfo"), difftrace.record(made, engine="sglang"):
        pass


def test_vllm_is_recorded_at_its_policy() -> None:
    model = TinyDenoiser()
    truth, policy = Truth(model), vllm_plugin.Llada2DefaultRemaskingPolicy()
    captured = recorded(policy, "auto", lambda: vllm_plugin.serve(model, policy, PROMPT[:1], truth=truth))
    start = PROMPT.shape[1]
    assert events(captured) == [(step, row, at - start, token) for step, row, at, token in told(truth.changes)]
    assert np.array_equal(captured.trajectories[0].final, truth.final[0, start:])


def test_a_vllm_request_may_stop_within_a_block() -> None:
    policy = vllm_plugin.Llada2DefaultRemaskingPolicy()
    logits = torch.zeros(8, 32)
    logits[:, 5] = 1.0
    draft = (MASK,) * 8

    def stop() -> None:
        following = draft
        for _ in range(4 + 3):
            following = policy.apply(input_draft=following, logits=logits).next_input_block

    (found,) = recorded(policy, "vllm", stop).trajectories
    assert found.initial.tolist() == [MASK] * 16
    assert found.final.tolist() == [5] * 14 + [MASK] * 2


def test_vllms_requests_that_take_turns_are_refused() -> None:
    model = TinyDenoiser()
    policy = vllm_plugin.Llada2DefaultRemaskingPolicy()
    with pytest.raises(CaptureError, match="one request at a time"), difftrace.record(policy, mask_id=MASK):
        vllm_plugin.serve(model, policy, PROMPT, truth=Truth(model))


@pytest.mark.parametrize(
    ("engine", "needed"), [("dinfer", "ParallelDecoder"), ("sglang", "DllmAlgorithm"), ("vllm", "RemaskingPolicy")]
)
def test_giving_the_model_where_another_object_is_recorded_says_which(engine: str, needed: str) -> None:
    with pytest.raises(CaptureError, match=needed), difftrace.record(TinyDenoiser(), engine=engine, mask_id=MASK):
        pass


def test_methods_are_put_back_and_recorded_once_at_a_time() -> None:
    model = TinyDenoiser()
    made = dinfer.ThresholdParallelDecoder(Truth(model))
    with difftrace.record(made, mask_id=MASK) as first:
        first.step([MASK], [1])
        with pytest.raises(CaptureError, match="already"):
            difftrace.record(made, mask_id=MASK).__enter__()
    assert "decode" not in vars(made)


def test_each_adapter_knows_its_engines_objects_and_no_others() -> None:
    truth = Truth(TinyDenoiser())
    named = {
        "dream": dream.DreamModel(),
        "dinfer": dinfer.HierarchyRemaskDecoder(truth),
        "sglang": sglang.JointThreshold(truth),
        "vllm": vllm_plugin.Llada2DefaultRemaskingPolicy(),
        "fast_dllm": type("LLaDAModelLM", (TinyDenoiser,), {})(),
        "generic": TinyDenoiser(),
    }
    assert {name: difftrace.record(target, mask_id=MASK).engine for name, target in named.items()} == {
        name: name for name in named
    }


@pytest.mark.parametrize("ends", [False, True], ids=["to its length", "to its end"])
def test_a_row_that_lost_its_ends_is_compared_with_dinfers_canvas(ends: bool) -> None:
    model = _of("dinfer stopped early").model() if ends else TinyDenoiser()
    made = dinfer.ThresholdParallelDecoder(Truth(model))
    engine = dinfer.BlockWiseDiffusionLLM(model, made)
    with difftrace.record(made, engine="dinfer", mask_id=MASK) as recorder:
        output = engine.generate(PROMPT[:1])
    captured = recorder.capture(output)
    assert captured.verified
    assert captured.trajectories[0].final.tolist() == made.truth.final[0].tolist()
    assert recorder.capture(output[:, PROMPT.shape[1] :]) == captured
    other = output.clone()
    other[0, -1] = (other[0, -1] + 1) % 8
    for wrong in (torch.full((1, 50), 7), torch.zeros(1, 3).long(), other, output[:, :-3], torch.zeros(1, 0).long()):
        with pytest.raises(CaptureError, match="row 0 of the output is not what was recorded"):
            recorder.capture(wrong)


@pytest.mark.parametrize("engine", ["sglang", "vllm", "dinfer"])
def test_the_source_that_is_a_suspect_is_the_engines(engine: str) -> None:
    model = TinyDenoiser()
    truth = Truth(model)
    made, module, loop = {
        "sglang": lambda: (one := sglang.LowConfidence(truth), sglang, lambda: sglang.serve(model, one, PROMPT)),
        "vllm": lambda: (
            one := vllm_plugin.Llada2DefaultRemaskingPolicy(),
            vllm_plugin,
            lambda: vllm_plugin.serve(model, one, PROMPT[:1], truth=truth),
        ),
        "dinfer": lambda: (
            one := dinfer.ThresholdParallelDecoder(truth),
            dinfer,
            lambda: dinfer.BlockWiseDiffusionLLM(model, one).generate(PROMPT[:1]),
        ),
    }[engine]()
    with difftrace.record(made, mask_id=MASK) as recorder:
        output = loop()
    digest = hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest()
    assert recorder.run(output).environment["sampler_source"] == f"sha256:{digest}"
