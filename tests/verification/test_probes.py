"""Each probe sees the fault that it is for, where it is, and says nothing of what it did not run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from difftrace.core.doctor import ProbeResult
from difftrace.core.errors import ProbeError
from difftrace.models import LoadedModel
from difftrace.verification import probes, second_copy
from difftrace.verification.probe_prompts import ProbePrompts, probe_prompts
from difftrace.verification.probe_run import ARGUMENTS, Conditions, run_rows
from difftrace.verification.probes import Subject, base_of

# Forward passes of the base: every prompt alone.
BASE_CALLS = 4 * ARGUMENTS.steps


def subject_of(loaded: LoadedModel) -> Subject:
    return base_of(loaded, probe_prompts(loaded), threads=1)


def plus(logits: Tensor, amount: float, position: int = 20, token: int = 5) -> Tensor:
    """Add to one logit of every row."""
    changed = logits.clone()
    changed[:, position, token] += amount
    return changed


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[LoadedModel], ProbeResult]:
    """Run the repeat probe without its fresh process."""

    def run(loaded: LoadedModel) -> ProbeResult:
        monkeypatch.setattr(probes, "rows_of_fresh_process", lambda *_: pytest.fail("not in this test"))
        return next(probes.repeat(subject_of(loaded)))

    return run


def test_a_sound_model_repeats_its_bits(misbehaving, in_process) -> None:
    result = in_process(misbehaving())
    assert (result.variant, result.verdict, result.difference) == ("in process", "bit-equal", 0.0)


@pytest.mark.parametrize("prompt", [0, 2])
def test_a_model_that_answers_otherwise_the_second_time_differs_at_that_step_and_position(
    misbehaving, in_process, prompt: int
) -> None:
    step = 3

    def change(call) -> Tensor:
        late = call.number == BASE_CALLS + prompt * ARGUMENTS.steps + step
        # The leftmost mask takes a token that it would not have taken.
        masked = int((call.ids[0] == 0).nonzero()[0])
        return plus(call.logits, 1000.0, masked, 77) if late else call.logits

    loaded = misbehaving(change)
    result = in_process(loaded)
    sound = subject_of(misbehaving()).base[prompt].trajectory
    leftmost = int((sound.canvas(step) == 0).nonzero()[0][0])
    assert (result.verdict, result.step, result.position, result.prompt) == ("differs", step, leftmost, prompt)
    assert result.difference == pytest.approx(1000.0, abs=1.0)


def test_noise_that_changes_no_decision_is_measured(misbehaving, in_process) -> None:
    def change(call) -> Tensor:
        if call.number < BASE_CALLS:
            return call.logits
        noisy = call.logits.clone()
        noisy[0, 20, 77] = torch.nextafter(noisy[0, 20, 77], torch.tensor(-torch.inf))
        return noisy

    result = in_process(misbehaving(change))
    assert result.verdict == "same decisions"
    assert result.difference is not None
    assert 0 < result.difference < 1e-5


def test_noise_from_a_counter_is_no_repetition(misbehaving, in_process) -> None:
    def change(call) -> Tensor:
        noise = torch.Generator().manual_seed(call.number)
        return call.logits + torch.randn(call.logits.shape, generator=noise)

    result = in_process(misbehaving(change))
    assert result.verdict == "differs"
    assert result.step is not None


def test_a_fresh_process_that_answers_otherwise_is_told_from_one_that_did_not_run(misbehaving, monkeypatch) -> None:
    subject = subject_of(misbehaving())
    other = subject_of(misbehaving(lambda call: plus(call.logits, 0.5))).base

    def dies(*_: object) -> None:
        raise ProbeError("the fresh process ended with status 3: boom")

    for answer, verdict in ((lambda *_: other, "same decisions"), (dies, "not run")):
        monkeypatch.setattr(probes, "rows_of_fresh_process", answer)
        _, result = probes.repeat(subject)
        assert (result.variant, result.verdict) == ("fresh process", verdict)
    assert result.reason == "the fresh process ended with status 3: boom"


def test_a_model_that_minds_its_batch_is_seen_by_batch_and_not_by_repeat(misbehaving, in_process) -> None:
    loaded = misbehaving(lambda call: plus(call.logits, call.ids.shape[0] * 1e-3, token=77))
    assert in_process(loaded).verdict == "bit-equal"
    two, four = probes.batch(subject_of(loaded))
    assert (two.variant, four.variant) == ("2 rows instead of 1", "4 rows instead of 1")
    assert {two.verdict, four.verdict} == {"same decisions"}
    assert two.difference == pytest.approx(1e-3, abs=3e-5)
    assert four.difference == pytest.approx(3e-3, abs=3e-5)


def test_every_row_of_a_batch_is_looked_at(misbehaving) -> None:
    def change(call) -> Tensor:
        changed = call.logits.clone()
        changed[3:, 20, 77] += 0.25
        return changed

    two, four = probes.batch(subject_of(misbehaving(change)))
    assert two.difference is not None
    assert two.difference < 1e-4
    assert four.difference == pytest.approx(0.25, abs=1e-4)


def test_a_model_that_ignores_its_mask_is_seen_by_padding_alone(misbehaving) -> None:
    (sound,) = probes.padding(subject_of(misbehaving()))
    deaf = subject_of(misbehaving(ignores_mask=True))
    (seen,) = probes.padding(deaf)
    # Positions move with the padding, so that sums round elsewhere.
    assert sound.verdict in ("bit-equal", "same decisions")
    assert sound.difference is not None
    assert sound.difference < 1e-3
    assert seen.verdict == "differs"
    assert seen.difference is not None
    assert seen.difference > 0.1
    assert all(result.difference is not None and result.difference < 1e-4 for result in probes.batch(deaf))


def test_padding_is_held_against_a_batch_of_the_same_size(misbehaving) -> None:
    (result,) = probes.padding(subject_of(misbehaving(lambda call: call.logits + 100.0 * call.ids.shape[0])))
    assert result.variant == "12 padding positions"
    assert result.difference is not None
    assert result.difference < 1.0


def test_threads_run_on_as_many_threads_as_they_say(misbehaving) -> None:
    counts: list[int] = []

    def change(call) -> Tensor:
        counts.append(torch.get_num_threads())
        return call.logits

    subject = subject_of(misbehaving(change))
    assert set(counts) == {1}
    for base, other in ((1, 2), (2, 1)):
        counts.clear()
        (result,) = probes.threads(replace(subject, threads=base))
        assert set(counts) == {base, other}
        assert result.variant == f"{other} instead of {base}"
        assert result.verdict != "not run"


def test_attention_runs_the_backend_that_it_names_and_no_other(misbehaving) -> None:
    seen: list[tuple[bool, bool]] = []

    def change(call) -> Tensor:
        seen.append((torch.backends.cuda.math_sdp_enabled(), torch.backends.cuda.flash_sdp_enabled()))
        return call.logits

    subject = subject_of(misbehaving(change))
    assert set(seen) == {(True, False)}
    seen.clear()
    flash = next(probes.attention(subject))
    assert flash.variant == "flash instead of math"
    assert flash.verdict != "not run"
    assert set(seen) == {(False, True)}


def test_a_backend_that_is_not_here_is_not_run(misbehaving) -> None:
    _, efficient, cudnn = probes.attention(subject_of(misbehaving()))
    for result in (efficient, cudnn):
        assert (result.verdict, result.unavailable, result.difference) == ("not run", True, None)
        assert result.reason == "not available here: torch has no such kernel for float32 heads of 24 on cpu"


def test_a_backend_that_torch_quietly_replaces_is_not_run(misbehaving, monkeypatch) -> None:
    subject = subject_of(misbehaving())
    monkeypatch.setattr(torch, "_fused_sdp_choice", lambda *_: 0)
    assert [result.verdict for result in probes.attention(subject)] == ["not run"] * 3


def test_a_torch_that_does_not_tell_its_choice_is_no_reason_to_stop(misbehaving, monkeypatch) -> None:
    subject = subject_of(misbehaving())
    monkeypatch.delattr(torch, "_fused_sdp_choice")
    flash = next(probes.attention(subject))
    assert (flash.verdict, flash.unavailable) == ("not run", False)


def test_the_other_dtype_is_named_and_measured(reference_model) -> None:
    (result,) = probes.dtype(subject_of(reference_model))
    assert result.variant == "bfloat16 instead of float32"
    assert result.difference is not None
    assert 1e-3 < result.difference < 10


def test_a_model_in_bf16_is_held_against_fp32(reference_model) -> None:
    from difftrace.models import load_model

    loaded = load_model(reference_model.folder, dtype="bfloat16", device="cpu")
    (result,) = probes.dtype(subject_of(loaded))
    assert result.variant == "float32 instead of bfloat16"
    assert result.verdict != "not run"


def test_a_second_copy_that_does_not_fit_is_not_tried(reference_model, monkeypatch) -> None:
    subject = subject_of(reference_model)
    monkeypatch.setattr(second_copy, "free_memory", lambda: 1000)
    (result,) = probes.dtype(subject)
    _, fresh = probes.repeat(subject)
    for refused in (result, fresh):
        assert refused.verdict == "not run"
        assert refused.reason is not None
        assert "second copy of the model" in refused.reason
        assert not refused.unavailable


def test_a_probe_that_fails_says_why_in_one_printable_line(misbehaving) -> None:
    def change(call) -> Tensor:
        if call.ids.shape[0] == 4:
            raise RuntimeError("out of \x1b[31mmemory\nand a long story")
        return call.logits

    two, four = probes.batch(subject_of(misbehaving(change)))
    assert two.verdict in ("bit-equal", "same decisions")
    assert (four.verdict, four.unavailable) == ("not run", False)
    assert four.reason == "RuntimeError: out of \\x1b[31mmemory"


def test_no_hook_stays_behind_even_if_the_model_fails(misbehaving) -> None:
    def change(call) -> Tensor:
        if call.number == 5:
            raise RuntimeError("no")
        return call.logits

    loaded = misbehaving(change)
    with pytest.raises(RuntimeError, match="no"):
        subject_of(loaded)
    assert not loaded.model._forward_hooks


def test_a_row_is_the_same_without_its_padding(reference_model) -> None:
    prompts = probe_prompts(reference_model)
    (alone,) = run_rows(reference_model, prompts.rows[:1], Conditions(1))
    padded, longer = run_rows(reference_model, (prompts.rows[0], prompts.longer), Conditions(1), batch=2)
    assert padded.trajectory == alone.trajectory
    assert padded.logits.shape == alone.logits.shape == (ARGUMENTS.steps, 10 + ARGUMENTS.gen_length, 104)
    assert longer.trajectory.prompt.tolist() == list(prompts.longer)
    assert torch.allclose(padded.logits, alone.logits, atol=1e-3)


def test_a_model_that_is_not_called_once_a_step_is_not_compared(misbehaving) -> None:
    def change(call) -> Tensor:
        if call.number == 0:
            loaded.model(call.ids)
        return call.logits

    loaded = misbehaving(change)
    with pytest.raises(ProbeError, match=f"called 17 times in {ARGUMENTS.steps} steps"):
        subject_of(loaded)


def test_prompts_are_questions_of_one_length_and_a_longer_one(reference_model) -> None:
    prompts = probe_prompts(reference_model)
    assert reference_model.tokenizer.decode(prompts.rows[0]) == "12 + 30 = "
    assert len(set(prompts.rows)) == 4
    assert {len(row) for row in prompts.rows} == {10}
    assert len(prompts.longer) > 10


def test_a_model_without_tokenizer_gets_ordinary_ids(conformance_model) -> None:
    prompts = probe_prompts(conformance_model)
    special = {300, 310}
    ids = {token for row in (*prompts.rows, prompts.longer) for token in row}
    assert len(set(prompts.rows)) == 4
    assert {len(row) for row in prompts.rows} == {prompts.length}
    assert len(prompts.longer) > prompts.length
    assert not ids & special
    assert max(ids) < 320
    assert len(ids) > 40


class OneToken:
    """A tokenizer that knows no figures."""

    def encode(self, text: str) -> list[int]:
        return [3] * len(text.split())


def test_a_tokenizer_that_cannot_tell_the_questions_apart_is_not_used(reference_model) -> None:
    prompts = probe_prompts(replace(reference_model, tokenizer=OneToken()))
    assert isinstance(prompts, ProbePrompts)
    assert len(set(prompts.rows)) == 4
