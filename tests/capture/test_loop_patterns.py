"""Each loop calls its model, and decides, in the way that makes it worth testing with."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from loops import dinfer, dllm, dream, fast_dllm, llada, sglang, vllm_plugin
from loops.cases import CASES, PROMPT, Case
from loops.choosing import quotas
from loops.model import EOS, MASK, Output, TinyDenoiser
from loops.truth import Truth

LENGTH = PROMPT.shape[1]


@dataclass
class Watched:
    """What a model was given and gave: ids as they were then, the very tensors, other arguments, outputs."""

    ids: list[Tensor] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    arguments: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)

    def hook(self, _: TinyDenoiser, args: tuple[Any, ...], kwargs: dict[str, Any], output: Output) -> None:
        self.tensors.append(args[0] if args else kwargs["inputs_embeds"])
        self.ids.append(self.tensors[-1].clone())
        self.arguments.append(kwargs)
        self.outputs.append(output)


def watch(model: TinyDenoiser) -> Watched:
    watched = Watched()
    model.register_forward_hook(watched.hook, with_kwargs=True)
    return watched


def run(name: str) -> tuple[Any, Truth, Watched]:
    (case,) = (case for case in CASES if case.name == name)
    watched = Watched()

    def model() -> TinyDenoiser:
        made = case.model()
        made.register_forward_hook(watched.hook, with_kwargs=True)
        return made

    returned, truth = Case(case.name, case.run, model=model).result()
    return returned, truth, watched


def test_ten_masks_in_four_steps_are_shared_in_two_ways() -> None:
    assert quotas(10, 4) == [3, 3, 2, 2]
    assert dllm.linear_quotas(10, 4) == [2, 3, 2, 3]


def test_mdlm_drops_steps_without_tokens_and_llada_makes_them() -> None:
    assert dllm.linear_quotas(2, 8) == [1, 1]
    assert quotas(2, 8) == [1, 1, 0, 0, 0, 0, 0, 0]
    _, truth, _ = run("llada more steps than masks")
    assert truth.counts() == [1] * 16 + [0] * 16


class TestLLaDA:
    def test_every_forward_gets_one_tensor_that_changes(self) -> None:
        _, _, watched = run("llada")
        assert len({tensor.data_ptr() for tensor in watched.tensors}) == 1
        assert not torch.equal(watched.ids[0], watched.ids[-1])

    def test_guidance_doubles_the_batch_and_masks_the_prompt(self) -> None:
        _, _, watched = run("llada with guidance")
        for ids in watched.ids:
            given, masked = ids.chunk(2)
            assert len(given) == len(PROMPT)
            assert (masked[:, :LENGTH] == MASK).all()
            assert torch.equal(given[:, LENGTH:], masked[:, LENGTH:])

    def test_logits_are_overwritten_where_the_model_left_them(self) -> None:
        for name in ("llada logits overwritten", "dllm mdlm logits overwritten and shifted", "remdm"):
            _, _, watched = run(name)
            assert all((output.logits == -torch.inf).any() for output in watched.outputs), name

    def test_embeddings_can_be_all_that_the_model_gets(self) -> None:
        _, _, watched = run("llada embeddings")
        assert all(tensor.is_floating_point() for tensor in watched.tensors)
        assert run("llada embeddings")[0] == run("llada")[0]

    def test_what_is_raised_midway_comes_out(self) -> None:
        def stop(step: int) -> None:
            if step == 2:
                raise KeyboardInterrupt

        model = TinyDenoiser()
        with pytest.raises(KeyboardInterrupt):
            llada.generate(model, PROMPT, on_step=stop, truth=Truth(model))
        assert model.calls == 3


class TestFastDLLM:
    @pytest.mark.parametrize("threshold", ["", " threshold"])
    @pytest.mark.parametrize("cache", ["prefix", "dual"])
    def test_a_cache_changes_what_is_passed_and_not_what_comes_out(self, cache: str, threshold: str) -> None:
        # In one layer keys and values depend on token and place alone, and what is cached stays as it is for a block.
        _, plain, _ = run(f"fast-dllm{threshold}")
        _, cached, watched = run(f"fast-dllm {cache} cache{threshold}")
        assert cached.events == plain.events
        assert min(ids.shape[1] for ids in watched.ids) < plain.initial.shape[1]

    def test_a_prefix_cache_leaves_the_right_end(self) -> None:
        _, _, watched = run("fast-dllm prefix cache")
        assert [ids.shape[1] for ids in watched.ids] == [21, 16, 16, 16, 21, 8, 8, 8]
        past = [arguments.get("past_key_values") for arguments in watched.arguments]
        assert [0 if cache is None else cache[0][0].shape[2] for cache in past] == [0, 5, 5, 5, 0, 13, 13, 13]

    def test_a_dual_cache_leaves_the_block_and_says_where_it_is(self) -> None:
        _, _, watched = run("fast-dllm dual cache")
        assert [ids.shape[1] for ids in watched.ids] == [21, 8, 8, 8, 21, 8, 8, 8]
        replaced = [arguments.get("replace_position") for arguments in watched.arguments]
        starts = [None if mask is None else int(mask[0].int().argmax()) for mask in replaced]
        assert starts == [None, 5, 5, 5, None, 13, 13, 13]

    def test_a_threshold_makes_steps_of_different_sizes(self) -> None:
        for loop in (fast_dllm.generate, fast_dllm.generate_with_prefix_cache, fast_dllm.generate_with_dual_cache):
            model = TinyDenoiser()
            truth = Truth(model)
            _, forwards = loop(model, PROMPT[:1], 8, 16, 8, threshold=0.6, truth=truth)
            assert len(set(truth.counts())) > 1
            assert min(truth.counts()) == 1
            assert forwards == truth.num_steps == model.calls


class TestDream:
    def test_the_hook_is_called_first_without_step_and_logits(self) -> None:
        seen = []

        def hook(step: int | None, canvas: Tensor, logits: Tensor | None) -> Tensor:
            seen.append((step, logits is None, int((canvas == MASK).sum())))
            return canvas

        model = dream.DreamModel()
        model.truth = Truth(model)
        model.diffusion_generate(PROMPT, generation_tokens_hook_func=hook)
        assert [(step, absent) for step, absent, _ in seen] == [(None, True), *((step, False) for step in range(6))]
        masks = [count for _, _, count in seen]
        assert masks == sorted(masks, reverse=True)
        assert (masks[0], masks[-1]) == (24, 0)

    def test_a_position_takes_its_token_from_the_row_before(self) -> None:
        _, truth, watched = run("dream")
        for event in truth.events:
            scores = watched.outputs[event.step].logits[event.row]
            assert event.new == int(scores[event.position - 1].argmax())
        assert any(
            event.new != int(watched.outputs[event.step].logits[event.row, event.position].argmax())
            for event in truth.events
        )

    def test_what_the_hook_writes_goes_on(self) -> None:
        def hook(step: int | None, canvas: Tensor, logits: Tensor | None) -> Tensor:
            canvas = canvas.clone()
            canvas[:, -1] = 7
            return canvas

        model = dream.DreamModel()
        model.truth = Truth(model)
        watched = watch(model)
        returned = model.diffusion_generate(PROMPT, generation_tokens_hook_func=hook)
        assert (returned[:, -1] == 7).all()
        assert all((ids[:, -1] == 7).all() for ids in watched.ids)

    def test_the_history_is_the_canvas_after_every_step(self) -> None:
        model = dream.DreamModel()
        model.truth = Truth(model)
        returned = model.diffusion_generate(PROMPT, output_history=True, return_dict_in_generate=True)
        assert [int((canvas == MASK).sum()) for canvas in returned.history] == [22, 18, 14, 10, 6, 0]
        assert torch.equal(returned.history[-1], returned.sequences)


class TestDLLM:
    @pytest.mark.parametrize("sampler", [dllm.MDLMSampler, dllm.BD3LMSampler])
    def test_histories_begin_with_the_first_canvas(self, sampler: Any) -> None:
        model = TinyDenoiser()
        truth = Truth(model)
        output = sampler(model, truth).sample([[3, 1, 4], [2]], return_dict=True)
        assert len(output.histories) == truth.num_steps + 1
        width = output.histories[0].shape[1]
        assert torch.equal(output.histories[0], truth.initial[:, :width])
        assert torch.equal(output.histories[-1], output.sequences)

    def test_block_diffusion_scores_what_there_is_before_every_block(self) -> None:
        _, truth, watched = run("dllm bd3lm")
        assert [ids.shape[1] for ids in watched.ids] == [8, *[8] * 4, 16, *[8] * 4]
        assert truth.forwards == [2, 3, 4, 5, 7, 8, 9, 10]

    def test_block_diffusion_guides_by_a_second_forward(self) -> None:
        _, truth, watched = run("dllm bd3lm with guidance")
        assert len(watched.ids) == 20
        assert {len(ids) for ids in watched.ids} == {2}
        assert truth.forwards == [4, 6, 8, 10, 14, 16, 18, 20]


class TestLLaDA2:
    def test_no_hook_of_the_module_fires(self) -> None:
        for name in ("llada2.0", "llada2.1 edits"):
            _, truth, watched = run(name)
            assert truth.model.calls > 0
            assert watched.ids == []

    def test_a_position_is_edited_several_times(self) -> None:
        for name in ("llada2.1 edits", "sglang joint threshold", "dinfer masks again", "remdm"):
            _, truth, _ = run(name)
            changes = Counter((event.row, event.position) for event in truth.changes)
            assert max(changes.values()) >= 5, name

    def test_tokens_are_masked_again_by_some_and_edited_by_others(self) -> None:
        masked_again = {
            name: any(event.new == MASK != event.old for event in run(name)[1].events)
            for name in ("remdm", "dinfer masks again", "llada2.1 edits", "sglang joint threshold")
        }
        assert list(masked_again.values()) == [True, True, False, False]

    def test_what_follows_the_end_is_cut_off(self) -> None:
        ((*rest, last),), truth, _ = run("llada2.0 cut at its end")
        assert last == EOS
        assert EOS not in rest
        assert len(rest) + 1 < truth.initial.shape[1] - LENGTH


def test_dinfer_fills_up_with_ends_without_a_forward() -> None:
    _, truth, watched = run("dinfer stopped early")
    assert len(watched.ids) == 8
    assert truth.counts()[-1] > truth.counts()[0]
    assert (truth.final[0, 13:] == EOS).all()


def test_dinfer_decodes_when_its_cache_is_refreshed_too() -> None:
    _, truth, watched = run("dinfer dual cache")
    widths = [ids.shape[1] for ids in watched.ids]
    assert truth.num_steps == len(widths)
    assert widths[:5] == [21, 8, 8, 8, 21]


def test_dinfer_decoders_write_to_an_array_that_is_no_tensor() -> None:
    array = dinfer.TokenArray(PROMPT, 8)
    assert not isinstance(array, Tensor)
    model = TinyDenoiser()
    decoder = dinfer.ThresholdParallelDecoder(Truth(model))
    decoder.truth.begin(array.data)
    decoder.decode(model(array.data).logits[:, LENGTH:], LENGTH, LENGTH + 8, array)
    assert torch.equal(decoder.truth.final, array.data)
    assert (array[:, LENGTH:] != MASK).any()


def test_sglang_says_done_one_step_late() -> None:
    for algorithm in (sglang.LowConfidence, sglang.JointThreshold):
        model = TinyDenoiser()
        made = algorithm(Truth(model))
        batch = sglang.ForwardBatch(torch.full((8,), MASK), 1, 0)
        states = made.init_step_state(batch)
        done, masks = [False], []
        while not all(done):
            masks.append(int((batch.input_ids == MASK).sum()))
            done = made.step(batch, model(batch.input_ids.view(1, -1)).logits.flatten(0, 1), states)
        assert masks[-1] == 0
        assert masks == sorted(masks, reverse=True)


def test_vllm_commits_a_block_at_once_and_hands_on_masks() -> None:
    model, policy = TinyDenoiser(), vllm_plugin.Llada2DefaultRemaskingPolicy()
    draft = (MASK,) * 8
    committed: tuple[int, ...] = ()
    filled = []
    while not committed:
        result = policy.apply(input_draft=draft, logits=model(torch.tensor([draft])).logits[0])
        committed, draft = result.committed_token_ids, result.next_input_block
        filled.append(8 - draft.count(MASK))
    assert filled == [2, 4, 6, 0]
    assert MASK not in committed


def test_mdlm_makes_fewer_forwards_than_steps() -> None:
    _, truth, watched = run("mdlm")
    assert len(watched.ids) < truth.num_steps
    assert len(set(truth.forwards)) == len(watched.ids)
