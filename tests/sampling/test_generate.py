"""The denoising loop: what it asks the model, what it commits when, what it records."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from difftrace.core.errors import SamplerError
from difftrace.models import LoadedModel
from difftrace.sampling import generate
from difftrace.sampling.llada import Record

MASK, EOS, EOT, VOCABULARY = 9, 8, 7, 10
PROMPT = torch.tensor([[1, 2]])
ONE_BLOCK: dict[str, Any] = {"steps": 4, "gen_length": 4, "block_length": 4}


def _one_hot(ids: Tensor, tokens: Any, height: float | Tensor = 5.0) -> Tensor:
    """Logits [B, L, V] that are `height` at `tokens` and 0 elsewhere."""
    logits = torch.zeros(*ids.shape, VOCABULARY)
    index = torch.as_tensor(tokens).expand(ids.shape).unsqueeze(-1)
    return logits.scatter(-1, index, torch.as_tensor(height).expand(ids.shape).unsqueeze(-1))


class TestTies:
    @pytest.mark.parametrize("remaining_steps", [1, 2, 4, 8])
    def test_with_all_confidences_equal_positions_are_committed_from_left_to_right(
        self, constant_model: Any, remaining_steps: int
    ) -> None:
        run = generate(constant_model, PROMPT, steps=remaining_steps, gen_length=8, block_length=8)
        assert run.trajectories[0].positions.tolist() == list(range(2, 10))
        assert run.tokens.tolist() == [[1, 2] + [3] * 8]

    def test_ties_across_a_batch_are_broken_alike_in_every_row(self, constant_model: Any) -> None:
        run = generate(constant_model, torch.tensor([[1, 2], [3, 4], [5, 6]]), **ONE_BLOCK)
        assert len({trajectory.positions.tobytes() for trajectory in run.trajectories}) == 1

    def test_a_tied_token_is_the_one_of_lowest_id(self, scripted: Callable[..., Any]) -> None:
        model = scripted(lambda ids, _: torch.zeros(*ids.shape, VOCABULARY).index_fill_(-1, torch.tensor([4, 6]), 1.0))
        assert generate(model, PROMPT, **ONE_BLOCK).tokens[0, 2:].tolist() == [4] * 4

    def test_upstream_leaves_ties_to_topk(self, constant_model: Any) -> None:
        run = generate(constant_model, PROMPT, steps=1, gen_length=128, block_length=128, tie_break="upstream")
        assert sorted(run.trajectories[0].positions.tolist()) == list(range(2, 130))
        first = generate(constant_model, PROMPT, steps=128, gen_length=128, block_length=128, tie_break="upstream")
        confidence = torch.full((130,), torch.softmax(torch.tensor([4.0] + [0.0] * 9), 0)[0].item())
        confidence[:2] = -torch.inf
        assert first.trajectories[0].positions[0] == torch.topk(confidence, 1).indices.item()


class TestSchedule:
    def test_the_most_confident_position_is_committed_first(self, scripted: Callable[..., Any]) -> None:
        heights = torch.tensor([9.0, 9.0, 2.0, 4.0, 1.0, 3.0])
        model = scripted(lambda ids, _: _one_hot(ids, 5, heights))
        assert generate(model, PROMPT, **ONE_BLOCK).trajectories[0].positions.tolist() == [3, 5, 2, 4]

    def test_blocks_are_finished_from_left_to_right(self, scripted: Callable[..., Any]) -> None:
        model = scripted(lambda ids, _: _one_hot(ids, 5, torch.arange(10.0)))
        run = generate(model, PROMPT, steps=4, gen_length=8, block_length=4)
        by_step = {step: set() for step in range(4)}
        for step, position in zip(run.trajectories[0].steps, run.trajectories[0].positions, strict=True):
            by_step[int(step)].add(int(position))
        assert by_step == {0: {4, 5}, 1: {2, 3}, 2: {8, 9}, 3: {6, 7}}

    def test_steps_that_commit_nothing_still_score_the_canvas_and_count(self, constant_model: Any) -> None:
        run = generate(constant_model, PROMPT, steps=10, gen_length=4, block_length=2)
        trajectory = run.trajectories[0]
        assert len(constant_model.inputs) == trajectory.num_steps == 10
        assert trajectory.steps.tolist() == [0, 1, 5, 6]
        assert MASK not in run.tokens

    @pytest.mark.parametrize("cfg_scale", [0.0, 1.5])
    def test_every_step_is_one_forward_with_the_batch_doubled_under_guidance(
        self, constant_model: Any, cfg_scale: float
    ) -> None:
        generate(constant_model, PROMPT.expand(3, 2), **ONE_BLOCK, cfg_scale=cfg_scale)
        assert [tuple(ids.shape) for ids in constant_model.inputs] == [(6 if cfg_scale else 3, 6)] * 4

    def test_every_forward_sees_what_was_committed_before(self, scripted: Callable[..., Any]) -> None:
        model = scripted(lambda ids, forward: _one_hot(ids, forward))
        run = generate(model, PROMPT, **ONE_BLOCK)
        for step, seen in enumerate(model.inputs):
            assert seen[0].tolist() == run.trajectories[0].canvas(step).tolist()
        assert run.tokens.tolist() == [[1, 2, 0, 1, 2, 3]]

    def test_a_mask_that_is_predicted_stays_open_and_is_committed_again(self, scripted: Callable[..., Any]) -> None:
        model = scripted(lambda ids, forward: _one_hot(ids, MASK if forward < 2 else 5))
        run = generate(model, PROMPT, **ONE_BLOCK)
        trajectory = run.trajectories[0]
        assert trajectory.positions.tolist() == [2, 2, 2, 3]
        assert trajectory.tokens.tolist() == [MASK, MASK, 5, 5]
        assert run.tokens.tolist() == [[1, 2, 5, 5, MASK, MASK]]
        assert trajectory.final.tolist() == run.tokens[0].tolist()

    def test_masks_in_the_prompt_compete_and_are_filled(self, scripted: Callable[..., Any]) -> None:
        heights = torch.tensor([1.0, 9.0, 1.0, 5.0, 4.0, 3.0, 2.0])
        model = scripted(lambda ids, _: _one_hot(ids, 5, heights))
        run = generate(model, torch.tensor([[1, MASK, 2]]), **ONE_BLOCK)
        assert run.trajectories[0].positions.tolist() == [1, 3, 4, 5]
        assert run.trajectories[0].prompt.tolist() == [1, MASK, 2]
        assert run.tokens.tolist() == [[1, 5, 2, 5, 5, 5, MASK]]

    def test_a_mask_left_over_from_an_earlier_block_can_be_filled_later(self, scripted: Callable[..., Any]) -> None:
        heights = torch.tensor([9.0, 1.0, 2.0, 3.0, 0.5])
        model = scripted(lambda ids, _: _one_hot(ids, 5, heights))
        run = generate(model, torch.tensor([[MASK]]), steps=2, gen_length=4, block_length=2)
        assert run.trajectories[0].positions.tolist() == [0, 2, 1, 3]

    def test_an_empty_prompt_is_a_prompt(self, constant_model: Any) -> None:
        run = generate(constant_model, torch.zeros((1, 0), dtype=torch.long), **ONE_BLOCK)
        assert run.tokens.tolist() == [[3] * 4]
        assert run.trajectories[0].prompt.tolist() == []


class TestEndTokens:
    @staticmethod
    def _score(ids: Tensor, forward: int) -> Tensor:
        # EOS is likeliest everywhere, at position 2 by most; 4 comes second; EOT third.
        logits = torch.zeros(*ids.shape, VOCABULARY)
        logits[..., EOS] = torch.tensor([0.0, 0.0, 9.0, 6.0, 6.0, 6.0])
        logits[..., 4] = torch.tensor([0.0, 0.0, 1.0, 3.0, 2.0, 5.0])
        return logits

    def test_eos_is_taken_where_nothing_forbids_it(self, scripted: Callable[..., Any]) -> None:
        run = generate(scripted(self._score), PROMPT, **ONE_BLOCK)
        assert run.tokens[0, 2:].tolist() == [EOS] * 4

    def test_logits_eos_inf_forbids_eos_and_only_eos(self, scripted: Callable[..., Any]) -> None:
        run = generate(scripted(self._score), PROMPT, **ONE_BLOCK, logits_eos_inf=True)
        assert run.tokens[0, 2:].tolist() == [4] * 4
        run = generate(scripted(lambda ids, _: _one_hot(ids, EOT)), PROMPT, **ONE_BLOCK, logits_eos_inf=True)
        assert run.tokens[0, 2:].tolist() == [EOT] * 4

    @pytest.mark.parametrize("ending", [EOS, EOT])
    @pytest.mark.parametrize("temperature", [0.0, 1e-6])
    def test_confidence_eos_eot_inf_commits_ends_last_at_any_temperature(
        self, scripted: Callable[..., Any], ending: int, temperature: float
    ) -> None:
        def score(ids: Tensor, forward: int) -> Tensor:
            return _one_hot(ids, [0, 0, ending, 4, ending, 4], torch.tensor([0.0, 0.0, 9.0, 2.0, 9.0, 3.0]))

        run = generate(
            scripted(score), PROMPT, **ONE_BLOCK, confidence_eos_eot_inf=True, temperature=temperature, seed=0
        )
        assert run.trajectories[0].positions.tolist() == [5, 3, 2, 4]
        assert run.tokens[0, 2:].tolist() == [ending, 4, ending, 4]

    @pytest.mark.parametrize("flag", ["logits_eos_inf", "confidence_eos_eot_inf"])
    def test_they_need_a_model_that_knows_its_eos(self, constant_model: Any, flag: str) -> None:
        constant_model.config.eos_token_id = None
        with pytest.raises(SamplerError, match="eos_token_id is not set"):
            generate(constant_model, PROMPT, **ONE_BLOCK, **{flag: True})

    def test_a_model_without_end_tokens_runs_without_them(self, constant_model: Any) -> None:
        constant_model.config = SimpleNamespace(mask_token_id=MASK)
        assert generate(constant_model, PROMPT, **ONE_BLOCK).tokens.tolist() == [[1, 2, 3, 3, 3, 3]]


class TestGuidance:
    def test_the_unconditional_half_sees_the_canvas_without_the_prompt(self, scripted: Callable[..., Any]) -> None:
        model = scripted(lambda ids, _: _one_hot(ids, 5))
        generate(model, torch.tensor([[1, MASK, 2]]), **ONE_BLOCK, cfg_scale=0.5)
        conditional, unconditional = model.inputs[1]
        assert conditional.tolist() == [1, 5, 2, MASK, MASK, MASK, MASK]
        assert unconditional.tolist() == [MASK, 5, MASK, MASK, MASK, MASK, MASK]

    def test_without_attention_mask_it_equals_a_mask_of_ones(self, conformance_model: LoadedModel) -> None:
        prompt = torch.tensor([[5, 151, 163, 230], [1, 2, 3, 4]])
        arguments: dict[str, Any] = {"steps": 8, "gen_length": 16, "block_length": 8, "cfg_scale": 1.5, "seed": 3}
        plain = generate(conformance_model.model, prompt, **arguments)
        masked = generate(conformance_model.model, prompt, attention_mask=torch.ones_like(prompt), **arguments)
        assert plain.trajectories == masked.trajectories

    def test_the_padding_mask_covers_both_halves(self, constant_model: Any) -> None:
        mask = torch.tensor([[0, 1], [1, 1]])
        generate(constant_model, PROMPT.expand(2, 2), attention_mask=mask, **ONE_BLOCK, cfg_scale=1.0)
        expected = [[0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]] * 2
        assert [seen.tolist() for seen in constant_model.masks] == [expected] * 4


class TestPadding:
    def test_a_padded_row_is_recorded_with_its_padding(self, constant_model: Any) -> None:
        prompt, mask = torch.tensor([[EOS, EOS, 1], [4, 5, 6]]), torch.tensor([[0, 0, 1], [1, 1, 1]])
        padded, full = generate(constant_model, prompt, attention_mask=mask, **ONE_BLOCK).trajectories
        assert (padded.padding, full.padding) == (2, 0)
        assert (padded.prompt.tolist(), full.prompt.tolist()) == ([1], [4, 5, 6])
        assert padded.attention_mask is not None
        assert padded.attention_mask.tolist() == [0, 0, 1, 1, 1, 1, 1]
        assert full.attention_mask is None
        assert padded.initial.tolist() == [EOS, EOS, 1] + [MASK] * 4

    def test_a_mask_that_hides_nothing_is_not_applied(self, constant_model: Any) -> None:
        generate(constant_model, PROMPT, attention_mask=torch.ones_like(PROMPT), **ONE_BLOCK)
        assert constant_model.masks == [None] * 4

    @pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.float32])
    def test_a_mask_may_come_in_any_dtype(self, constant_model: Any, dtype: torch.dtype) -> None:
        mask = torch.tensor([[0, 1]]).to(dtype)
        run = generate(constant_model, PROMPT, attention_mask=mask, **ONE_BLOCK)
        assert run.trajectories[0].padding == 1

    def test_a_padded_row_decides_as_it_would_with_other_padding_tokens(self, conformance_model: LoadedModel) -> None:
        arguments: dict[str, Any] = {"steps": 8, "gen_length": 8, "block_length": 8}
        mask = torch.tensor([[0, 0, 0, 1, 1, 1]])
        runs = [
            generate(conformance_model.model, torch.tensor([[*padding, 5, 6, 7]]), attention_mask=mask, **arguments)
            for padding in ([300, 300, 300], [1, 2, 3])
        ]
        assert runs[0].tokens[0, 3:].tolist() == runs[1].tokens[0, 3:].tolist()


class TestRandomness:
    ARGUMENTS: dict[str, Any] = {"steps": 4, "gen_length": 8, "block_length": 8, "temperature": 1.0}  # noqa: RUF012

    @staticmethod
    def _flat(ids: Tensor, forward: int) -> Tensor:
        return torch.zeros(*ids.shape, VOCABULARY)

    @pytest.mark.parametrize("remasking", ["low_confidence", "random"])
    def test_a_seed_repeats_the_run_and_leaves_the_global_generator_alone(
        self, scripted: Callable[..., Any], remasking: str
    ) -> None:
        before = torch.get_rng_state()
        first, again, other = (
            generate(scripted(self._flat), PROMPT, **self.ARGUMENTS, remasking=remasking, seed=seed).trajectories[0]
            for seed in (3, 3, 4)
        )
        assert torch.equal(torch.get_rng_state(), before)
        assert first == again
        assert first != other

    def test_without_a_seed_the_global_generator_is_drawn_from(self, scripted: Callable[..., Any]) -> None:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(3)
            first = generate(scripted(self._flat), PROMPT, **self.ARGUMENTS).trajectories[0]
            second = generate(scripted(self._flat), PROMPT, **self.ARGUMENTS).trajectories[0]
        seeded = generate(scripted(self._flat), PROMPT, **self.ARGUMENTS, seed=3).trajectories[0]
        assert first == seeded
        assert second != first

    def test_at_temperature_zero_nothing_is_drawn(self, scripted: Callable[..., Any]) -> None:
        before = torch.get_rng_state()
        generate(scripted(self._flat), PROMPT, **{**self.ARGUMENTS, "temperature": 0.0})
        assert torch.equal(torch.get_rng_state(), before)

    def test_random_remasking_ignores_confidence(self, scripted: Callable[..., Any]) -> None:
        model = scripted(lambda ids, _: _one_hot(ids, 5, torch.arange(34.0)))
        run = generate(model, PROMPT, steps=32, gen_length=32, block_length=32, remasking="random", seed=0)
        positions = run.trajectories[0].positions.tolist()
        assert sorted(positions) == list(range(2, 34))
        assert positions != sorted(positions, reverse=True)


class TestRecord:
    @pytest.mark.parametrize("cfg_scale", [0.0, 1.5])
    def test_what_is_recorded_changes_no_token(self, conformance_model: LoadedModel, cfg_scale: float) -> None:
        prompt = torch.tensor([[5, 151, 163, 230], [1, 2, 310, 4]])
        arguments: dict[str, Any] = {"steps": 8, "gen_length": 16, "block_length": 8, "temperature": 0.7, "seed": 1}
        arguments["cfg_scale"] = cfg_scale
        bare = generate(conformance_model.model, prompt, **arguments, record="none")
        assert (bare.trajectories, bare.evidence, bare.logits) == ([], [], [])
        records: tuple[Record, ...] = ("decisions", "evidence", "logits")
        for record in records:
            recorded = generate(conformance_model.model, prompt, **arguments, record=record)
            assert torch.equal(bare.tokens, recorded.tokens)
            assert len(recorded.trajectories) == 2
            assert len(recorded.evidence) == (0 if record == "decisions" else 2)
            assert len(recorded.logits) == (2 if record == "logits" else 0)

    @pytest.mark.parametrize(
        ("name", "meaning"), [("tokens", "decisions"), ("tokens+masks", "decisions"), ("full", "logits")]
    )
    def test_other_names_record_the_same(self, conformance_model: LoadedModel, name: Record, meaning: Record) -> None:
        prompt = torch.tensor([[5, 151, 163]])
        one, other = (
            generate(conformance_model.model, prompt, steps=4, gen_length=8, block_length=8, record=record)
            for record in (name, meaning)
        )
        assert one.trajectories == other.trajectories
        assert [len(run.evidence) for run in (one, other)] == [int(meaning == "logits")] * 2
        assert len(one.logits) == len(other.logits) == int(meaning == "logits")
        assert all(torch.equal(*pair) for pair in zip(one.logits, other.logits, strict=True))
        before_last = one.trajectories[0].canvas(3)
        assert (before_last == conformance_model.config.mask_token_id).sum() == 2

    def test_evidence_is_recorded_unless_asked_otherwise(self, constant_model: Any) -> None:
        run = generate(constant_model, PROMPT, **ONE_BLOCK)
        assert len(run.evidence) == 1
        assert run.evidence[0].candidates.tolist() == [4, 3, 2, 1]
        assert run.logits == []

    @pytest.mark.parametrize("remasking", ["low_confidence", "random"])
    @pytest.mark.parametrize("tie_break", ["stable", "upstream"])
    def test_every_trajectory_ends_in_the_tokens_returned(
        self, conformance_model: LoadedModel, remasking: str, tie_break: str
    ) -> None:
        prompt = torch.tensor([[300, 300, 5, 310], [1, 2, 3, 4], [7, 8, 310, 310]])
        mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]])
        run = generate(
            conformance_model.model,
            prompt,
            attention_mask=mask,
            steps=9,
            gen_length=30,
            block_length=10,
            temperature=0.7,
            remasking=remasking,
            tie_break=tie_break,
            seed=2,
        )
        assert run.tokens.shape == (3, 34)
        assert [trajectory.final.tolist() for trajectory in run.trajectories] == run.tokens.tolist()
        assert [trajectory.num_events for trajectory in run.trajectories] == [30] * 3

    def test_the_callers_prompt_is_left_as_it_was(self, constant_model: Any) -> None:
        prompt = torch.tensor([[1, MASK]])
        generate(constant_model, prompt, **ONE_BLOCK)
        assert prompt.tolist() == [[1, MASK]]


class TestBadInput:
    @pytest.mark.parametrize(
        ("prompt", "says"),
        [
            ([[1, 2]], "prompt_ids must be an integer tensor .*, not list"),
            (torch.tensor([1, 2]), r"not torch\.int64 \(2,\)"),
            (torch.tensor([[1.0, 2.0]]), r"not torch\.float32 \(1, 2\)"),
            (torch.tensor([[True, False]]), r"not torch\.bool \(1, 2\)"),
            (torch.zeros((0, 3), dtype=torch.long), "prompt_ids holds no rows"),
            (torch.tensor([[1, 10]]), "prompt_ids hold 10, outside the vocabulary of 10"),
            (torch.tensor([[-1, 1]]), "prompt_ids hold -1, outside the vocabulary of 10"),
        ],
    )
    def test_a_prompt_that_is_none_is_refused(self, constant_model: Any, prompt: Any, says: str) -> None:
        with pytest.raises(SamplerError, match=says):
            generate(constant_model, prompt, **ONE_BLOCK)
        assert constant_model.inputs == []

    @pytest.mark.parametrize(
        ("mask", "says"),
        [
            ([[1, 1]], "attention_mask must be a tensor .*, not list"),
            (torch.tensor([[1, 1, 1]]), r"attention_mask \(1, 3\) and prompt_ids \(1, 2\) differ in shape"),
            (torch.tensor([[1, 2]]), r"attention_mask must hold 0 \(padding\) and 1 only"),
        ],
    )
    def test_an_attention_mask_that_is_none_is_refused(self, constant_model: Any, mask: Any, says: str) -> None:
        with pytest.raises(SamplerError, match=says):
            generate(constant_model, PROMPT, attention_mask=mask, **ONE_BLOCK)

    def test_a_model_without_a_mask_token_is_refused(self, constant_model: Any) -> None:
        constant_model.config = SimpleNamespace()
        with pytest.raises(SamplerError, match="mask_token_id is not set"):
            generate(constant_model, PROMPT, **ONE_BLOCK)

    def test_an_unknown_record_level_is_refused(self, constant_model: Any) -> None:
        with pytest.raises(SamplerError, match=r"one of none, decisions, evidence, logits, .*, full, not 'all'"):
            generate(constant_model, PROMPT, **ONE_BLOCK, record="all")  # type: ignore[arg-type]

    def test_a_canvas_longer_than_the_model_knows_is_refused(self, conformance_model: LoadedModel) -> None:
        with pytest.raises(SamplerError, match="257 positions, but the model's max_sequence_length is 256"):
            generate(conformance_model.model, PROMPT, steps=1, gen_length=255, block_length=255)


def test_no_progress_bar_where_nobody_looks(
    constant_model: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("difftrace.sampling.llada._PROGRESS_AFTER", 0.0)
    generate(constant_model, PROMPT, **ONE_BLOCK)
    assert capfd.readouterr() == ("", "")


def test_a_long_run_shows_its_progress_on_a_terminal(constant_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("difftrace.sampling.llada._PROGRESS_AFTER", 0.0)
    generate(constant_model, PROMPT, **ONE_BLOCK)
    assert "denoising" in terminal.getvalue()
