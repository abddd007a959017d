"""Prompts in, runs out: every kind of prompt, what a run says of itself, and that it repeats."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import difftrace
from difftrace.core.errors import DeterminismError, RunError, SamplerError
from difftrace.core.recording import TestId
from difftrace.models import LoadedModel, load_model
from difftrace.sampling import generate
from difftrace.verification import DeferredRunner, ModelRunner

SHORT: dict[str, Any] = {"gen_length": 8, "steps": 4}


@pytest.fixture(scope="module")
def bare(conformance_model: LoadedModel) -> ModelRunner:
    """A model without a tokenizer."""
    return ModelRunner(conformance_model)


@pytest.fixture(scope="module")
def runner(conformance_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelRunner:
    """The same model with a tokenizer of 300 words and the model's special tokens."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    folder = tmp_path_factory.mktemp("model")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(conformance_folder / name, folder)
    words = {f"w{n}": n for n in range(300)} | {"<eos>": 300} | {f"x{n}": n for n in range(301, 310)} | {"<mask>": 310}
    words |= {f"x{n}": n for n in range(311, 320)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken("<eos>", special=True), AddedToken("<mask>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return ModelRunner(load_model(folder, device="cpu"))


def test_a_text_and_its_ids_run_alike_in_whatever_they_come(runner: ModelRunner) -> None:
    expected = runner.generate("w5 w151 w163", **SHORT)
    for prompt in (
        [5, 151, 163],
        (5, 151, 163),
        [[5, 151, 163]],
        ["w5 w151 w163"],
        torch.tensor([5, 151, 163]),
        torch.tensor([[5, 151, 163]], dtype=torch.int32),
        np.array([5, 151, 163]),
    ):
        assert runner.generate(prompt, **SHORT) == expected


def test_it_runs_what_the_sampler_runs(bare: ModelRunner) -> None:
    arguments: dict[str, Any] = {**SHORT, "block_length": 4, "temperature": 0.7, "noise": "upstream", "seed": 3}
    run = bare.generate([5, 151, 163], **arguments)
    direct = generate(bare.loaded.model, torch.tensor([[5, 151, 163]]), **arguments)
    assert list(run.trajectories) == direct.trajectories


def test_portable_noise_is_the_default_and_named_and_is_the_samplers(bare: ModelRunner) -> None:
    arguments: dict[str, Any] = {**SHORT, "temperature": 0.7, "remasking": "random", "noise": "portable", "seed": 3}
    both = bare.generate([[5, 151, 163], [7, 8, 9]], **arguments)
    direct = [
        generate(bare.loaded.model, torch.tensor([prompt]), **arguments, block_length=8).trajectories[0]
        for prompt in ([5, 151, 163], [7, 8, 9])
    ]
    assert list(both.trajectories) == direct
    assert both.sampler is not None
    assert both.sampler.arguments["noise"] == "portable"
    without = {name: value for name, value in arguments.items() if name != "noise"}
    assert bare.generate([[5, 151, 163], [7, 8, 9]], **without) == both
    assert bare.generate([5, 151, 163], **{**arguments, "noise": "upstream"}).trajectories[0] != direct[0]


def test_without_a_block_length_there_is_one_block(bare: ModelRunner) -> None:
    assert bare.generate([1], **SHORT) == bare.generate([1], **SHORT, block_length=8)
    sampler = bare.generate([1], **SHORT).sampler
    assert sampler is not None
    assert sampler.arguments["block_length"] == 8


def test_a_batch_is_padded_on_the_left_and_its_prompts_come_back_unpadded(runner: ModelRunner) -> None:
    run = runner.generate(["w1 w2 w3", "w4"], **SHORT)
    assert [trajectory.padding for trajectory in run.trajectories] == [0, 2]
    assert [trajectory.prompt.tolist() for trajectory in run.trajectories] == [[1, 2, 3], [4]]
    assert run.trajectories[1].initial[:2].tolist() == [300, 300]
    assert run.prompt_texts == ("w1 w2 w3", "w4")
    assert run.texts is not None
    assert len(run.texts) == 2


def test_prompts_of_one_length_need_no_padding_and_decide_as_they_do_alone(bare: ModelRunner) -> None:
    both = bare.generate([[5, 151, 163], [7, 8, 9]], **SHORT).trajectories
    alone = [bare.generate(prompt, **SHORT).trajectories[0] for prompt in ([5, 151, 163], [7, 8, 9])]
    assert list(both) == alone


def test_a_padded_row_decides_as_the_sampler_does_with_an_attention_mask(bare: ModelRunner) -> None:
    run = bare.generate([[1, 2, 3], [4]], **SHORT)
    ids, mask = torch.tensor([[1, 2, 3], [300, 300, 4]]), torch.tensor([[1, 1, 1], [0, 0, 1]])
    direct = generate(bare.loaded.model, ids, attention_mask=mask, **SHORT, block_length=8, seed=0)
    assert list(run.trajectories) == direct.trajectories


def test_the_text_is_what_was_generated(runner: ModelRunner) -> None:
    run = runner.generate("w5 w151", **SHORT)
    ids = run.trajectories[0].final[2:].tolist()
    assert run.text == " ".join(runner.loaded.tokenizer.piece(i) for i in ids if i not in (300, 310))  # type: ignore[union-attr]
    assert run.text


def test_every_id_of_a_run_has_its_piece(runner: ModelRunner) -> None:
    run = runner.generate("w5 w151", **SHORT)
    used = {int(i) for t in run.trajectories for column in (t.initial, t.tokens) for i in column}
    assert set(run.pieces) == used
    assert run.pieces[310] == "<mask>"
    assert run.pieces[5] == "w5"


def test_an_empty_text_is_a_prompt(runner: ModelRunner) -> None:
    assert runner.generate("", **SHORT).trajectories[0].prompt.tolist() == []
    assert [t.padding for t in runner.generate(["", "w1"], **SHORT).trajectories] == [1, 0]


def test_a_run_repeats_whatever_the_generators_did_before(bare: ModelRunner) -> None:
    first = bare.generate([1, 2], **SHORT, temperature=1.0, remasking="random", seed=5)
    random.random(), torch.rand(3), np.random.rand()
    again = bare.generate([1, 2], **SHORT, temperature=1.0, remasking="random", seed=5)
    assert first == again
    assert first != bare.generate([1, 2], **SHORT, temperature=1.0, remasking="random", seed=6)


def test_it_runs_under_enforced_settings_and_says_so(bare: ModelRunner) -> None:
    before = torch.get_rng_state()
    environment = bare.generate([1], **SHORT).environment
    assert environment["deterministic_algorithms"] == "error"
    assert environment["dtype"] == "float32"
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_makes_a_baseline_that_names_model_and_sampler(runner: ModelRunner) -> None:
    baseline = runner.generate("w1", **SHORT).to_baseline(TestId("test_a.py", "test_b", None))
    assert baseline.model == runner.loaded.identity
    assert baseline.sampler is not None
    assert baseline.sampler.arguments["seed"] == 0
    assert baseline.sequences[0].prompt_text == "w1"


def test_without_a_tokenizer_there_are_ids_only(bare: ModelRunner) -> None:
    run = bare.generate([1], **SHORT)
    assert (run.texts, run.prompt_texts, run.pieces) == (None, None, {})
    with pytest.raises(RunError, match="without a tokenizer"):
        _ = run.text
    with pytest.raises(SamplerError, match="has no tokenizer: give token ids, not text"):
        bare.generate("hello", **SHORT)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ([], "the prompt is empty"),
        (7, "must be a text, token ids, or a list of either, not int"),
        (None, "not NoneType"),
        (torch.tensor(7), "not int"),
        ([1, "w2"], "prompt 0 of the batch is neither a text nor a list of token ids: 1"),
        ([[1], 2.5], r"prompt 1 of the batch is neither .*: 2\.5"),
        ([[1, 2.5]], "prompt 0 of the batch is neither"),
        (torch.tensor([[0.5]]), "prompt 0 of the batch is neither"),
        ([True], "prompt 0 of the batch is neither"),
        ([1, 320], "prompt_ids hold 320, outside the vocabulary of 320"),
        ([-1], "prompt_ids hold -1, outside the vocabulary of 320"),
    ],
)
def test_what_is_no_prompt_is_refused(bare: ModelRunner, prompt: Any, says: str) -> None:
    with pytest.raises(SamplerError, match=says):
        bare.generate(prompt, **SHORT)


def test_contradicting_arguments_are_refused(bare: ModelRunner) -> None:
    with pytest.raises(SamplerError, match="steps 3 cannot be divided by the 2 blocks"):
        bare.generate([1], gen_length=8, steps=3, block_length=4)
    with pytest.raises(SamplerError, match="give seed= an integer"):
        bare.generate([1], **SHORT, seed=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [ModelRunner, DeferredRunner])
def test_a_canvas_longer_than_the_model_knows_is_refused_before_the_model_is_called(
    bare: ModelRunner, kind: type[ModelRunner | DeferredRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(bare.loaded.model), "forward", lambda *_, **__: pytest.fail("the model was called"))
    says = r"2 prompt tokens \+ gen_length 255 = 257 positions, .* is 256: shorten the prompt or lower gen_length"
    with pytest.raises(SamplerError, match=says):
        kind(bare.loaded).generate([[1], [1, 2]], gen_length=255, steps=1)


def test_a_small_model_runs_on_one_thread_whatever_the_machine_has(bare: ModelRunner) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert bare.generate([1], **SHORT).environment["threads"] == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def _watched(bare: ModelRunner, forward: Callable[[], object], **changes: Any) -> ModelRunner:
    """Return `bare` with a model that calls `forward` at each forward pass."""

    class Model:
        config = bare.loaded.config
        parameters = bare.loaded.model.parameters

        def __call__(self, *arguments: Any, **keywords: Any) -> Any:
            forward()
            return bare.loaded.model(*arguments, **keywords)

    return replace(bare, loaded=replace(bare.loaded, model=Model()), **changes)  # type: ignore[arg-type]


def test_a_switch_that_something_changes_during_the_run_is_an_error_naming_it(bare: ModelRunner) -> None:
    changed = _watched(bare, lambda: torch.backends.cuda.enable_flash_sdp(True))
    with pytest.raises(DeterminismError, match=r"attention_backend: requested math, in force flash.*changed since"):
        changed.generate([1], **SHORT)


def test_settings_that_building_a_model_left_behind_are_corrected_for_the_run(bare: ModelRunner) -> None:
    seen = []
    before = _attention()
    try:
        torch.backends.cuda.enable_math_sdp(False)
        torch.backends.cuda.enable_flash_sdp(True)
        _watched(bare, lambda: seen.append(_attention())).generate([1], **SHORT)
        assert set(seen) == {(True, False)}
        assert _attention() == (False, True)
    finally:
        torch.backends.cuda.enable_math_sdp(before[0])
        torch.backends.cuda.enable_flash_sdp(before[1])


def _attention() -> tuple[bool, bool]:
    return torch.backends.cuda.math_sdp_enabled(), torch.backends.cuda.flash_sdp_enabled()


def test_the_run_is_held_to_the_profile_asked_for(bare: ModelRunner) -> None:
    seen = []
    _watched(bare, lambda: seen.append(difftrace.status().profile), profile="cpu").generate([1], **SHORT)
    assert set(seen) == {"cpu"}
    with pytest.raises(DeterminismError, match="cuda is not for device 'cpu'"):
        replace(bare, profile="cuda").generate([1], **SHORT)


def test_a_run_can_be_repeated_as_it_was(bare: ModelRunner) -> None:
    prompt = torch.tensor([5, 151, 163])
    run = bare.generate(prompt, **SHORT, temperature=0.7, seed=3)
    prompt.fill_(0)
    assert run.repeat is not None
    again = run.repeat()
    assert again == run
    assert again.evidences == run.evidences
    assert again.environment == run.environment
