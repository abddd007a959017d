"""How steps are gathered, reduced and kept apart does not show in the evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from difftrace.core.errors import SamplerError
from difftrace.core.evidence import Evidence
from difftrace.models import LoadedModel
from difftrace.sampling import generate
from difftrace.sampling.evidence import EvidenceRecorder
from difftrace.sampling.reduction import reduce_steps
from difftrace.sampling.step import Step

MASK, VOCABULARY = 9, 10
PROMPTS = torch.tensor([[5, 151, 163, 230], [1, 2, 310, 4]])
PLACES = 2 * (4 + 14)
SHAPE: dict[str, Any] = {"steps": 7, "gen_length": 14, "block_length": 14, "seed": 1}
NOISY: dict[str, Any] = {**SHAPE, "temperature": 0.7, "cfg_scale": 1.0, "remasking": "random"}


def _scores(ids: Tensor, forward: int, padding: int = 0) -> Tensor:
    """Logits made of whole numbers, so that neither batch nor threads can change a bit of them."""
    places, tokens = torch.arange(ids.shape[1]).view(-1, 1) - padding, torch.arange(VOCABULARY)
    return ((ids.unsqueeze(-1) * 7 + places * 13 + tokens * 29 + forward * 17) % 101) / 8


def _assert_same(one: list[Evidence], other: list[Evidence]) -> None:
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        for name, column in vars(first).items():
            np.testing.assert_array_equal(column, getattr(second, name), err_msg=name)


def _step(width: int = 6, commits: int = 2, **changes: Any) -> Step:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, width, VOCABULARY), generator=generator)
    candidates = torch.ones(2, width, dtype=torch.bool)
    candidates[:, 0] = False
    committed = torch.zeros_like(candidates)
    committed[:, 1 : 1 + commits] = True
    confidences = torch.rand((2, width), generator=generator)
    return replace(Step(logits, logits, candidates, committed, logits.argmax(-1), confidences), **changes)


def _recorded(*steps: Step, first: int = 0, hold: int | None = None) -> list[Evidence]:
    recorder = EvidenceRecorder(torch.full((2,), first), hold)
    for step in steps:
        recorder.add(step)
    return recorder.finish()


class TestGrouping:
    @pytest.fixture(params=[SHAPE, NOISY], ids=["greedy", "noisy"])
    def run(self, request: pytest.FixtureRequest, conformance_model: LoadedModel) -> Callable[[], list[Evidence]]:
        return lambda: generate(conformance_model.model, PROMPTS, **request.param).evidence

    @pytest.mark.parametrize("hold", [1, 3])
    def test_steps_reduced_a_few_at_a_time_show_the_same(
        self, run: Callable[[], list[Evidence]], hold: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        together = run()
        monkeypatch.setattr(Step, "kept_bytes", 1)
        monkeypatch.setattr("difftrace.sampling.evidence._HOLD_CPU", hold)
        assert [len(told) for told in _counted(monkeypatch, run, together)] == ([1] * 7 if hold == 1 else [3, 3, 1])

    def test_rows_worked_through_one_by_one_show_the_same(
        self, run: Callable[[], list[Evidence]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        together = run()
        monkeypatch.setattr("difftrace.sampling.rows._PIECE_CPU", 1)
        _assert_same(run(), together)

    @pytest.mark.parametrize("lag", [1, 2, 100])
    def test_a_device_that_is_behind_changes_nothing(
        self, run: Callable[[], list[Evidence]], lag: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        together = run()
        sent: list[Tensor] = []

        def send(values: Tensor) -> Any:
            number = len(sent)
            sent.append(values)
            return SimpleNamespace(read=lambda: values.tolist() if len(sent) > number + lag else None)

        monkeypatch.setattr("difftrace.sampling.evidence.SENDING", ("cpu",))
        monkeypatch.setattr("difftrace.sampling.evidence.send", send)
        monkeypatch.setattr(Step, "kept_bytes", 1)
        monkeypatch.setattr("difftrace.sampling.evidence._HOLD_CPU", 3)
        told = [count for counts in _counted(monkeypatch, run, together) for count in counts]
        # Where no count ever arrives, steps are reduced on a guess: every place might be a candidate.
        assert (PLACES in told) is (lag == 100)
        assert len(told) == SHAPE["steps"]

    def test_steps_of_different_shape_or_place_may_follow_each_other(self) -> None:
        steps = [_step(6), _step(6, commits=1), _step(3), _step(6, start=20), _step(6)]
        mixed = _recorded(*steps)
        for number, step in enumerate(steps):
            for evidence, (alone,) in zip(mixed, [[row] for row in _recorded(step)], strict=True):
                assert evidence.sketches[number].tolist() == alone.sketches[0].tolist()
                assert evidence.rejected_positions[number].tolist() == alone.rejected_positions[0].tolist()
        assert mixed[0].top_tokens.shape == (2 + 1 + 2 + 2 + 2,)

    def test_a_run_without_steps_is_refused(self) -> None:
        with pytest.raises(SamplerError, match="no step was recorded"):
            EvidenceRecorder(torch.zeros(1, dtype=torch.long)).finish()


def _counted(
    monkeypatch: pytest.MonkeyPatch, run: Callable[[], list[Evidence]], expected: list[Evidence]
) -> list[tuple[int, ...]]:
    """Return the numbers of candidates that each reduction of `run` is told of; its evidence must be as expected."""
    calls: list[tuple[int, ...]] = []

    def counting(steps: Any, first: Any, candidates: Any, commits: Any) -> Any:
        calls.append(tuple(candidates))
        return reduce_steps(steps, first, candidates, commits)

    monkeypatch.setattr("difftrace.sampling.evidence.reduce_steps", counting)
    _assert_same(run(), expected)
    return calls


@pytest.mark.parametrize("buffers", [1, 2, 3])
@pytest.mark.parametrize("settings", [{}, {"logits_eos_inf": True}, {"cfg_scale": 1.0}], ids=str)
def test_a_model_may_return_the_same_memory_again(
    buffers: int, settings: dict[str, Any], scripted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory: list[Tensor] = []

    def reusing(ids: Tensor, forward: int) -> Tensor:
        logits = _scores(ids, forward)
        if forward < buffers:
            memory.append(logits)
            return logits
        return memory[forward % buffers].copy_(logits)

    prompt = torch.tensor([[1, 2]])
    fresh = generate(scripted(_scores), prompt, **SHAPE, **settings).evidence
    _assert_same(generate(scripted(reusing), prompt, **SHAPE, **settings).evidence, fresh)


class TestRowsStandAlone:
    """What a row's evidence says does not depend on the rows beside it, nor on padding before it."""

    ROWS = ((1, 2, 3), (4,), (5, 6))

    @pytest.fixture(params=[{}, {"cfg_scale": 1.0}, {"temperature": 0.7, "remasking": "random", "noise": "portable"}])
    def settings(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        return {**SHAPE, **request.param}

    def test_in_a_padded_batch(self, settings: dict[str, Any], scripted: Callable[..., Any]) -> None:
        padding = torch.tensor([3 - len(row) for row in self.ROWS])
        ids = torch.tensor([[0] * (3 - len(row)) + list(row) for row in self.ROWS])
        mask = (torch.arange(3) >= padding.unsqueeze(-1)).long()

        def score(ids: Tensor, forward: int) -> Tensor:
            rows = padding.repeat(len(ids) // len(padding)).view(-1, 1, 1)
            return _scores(ids, forward, rows)  # type: ignore[arg-type]

        batch = generate(scripted(score), ids, attention_mask=mask, **settings).evidence
        for number, row in enumerate(self.ROWS):
            alone = generate(scripted(_scores), torch.tensor([row]), **settings).evidence[0]
            shift = int(padding[number])
            together = batch[number]
            moved = np.where(together.rejected_positions < 0, -1, together.rejected_positions - shift)
            _assert_same([replace(together, rejected_positions=moved)], [alone])

    def test_in_a_window_of_a_longer_canvas(self) -> None:
        (short, _), (long, _) = _recorded(_step(6)), _recorded(_step(6, start=300), first=300)
        assert short.rejected_positions.tolist() == [[4, 3, 5, -1]]
        assert long.rejected_positions.tolist() == [[304, 303, 305, -1]]
        _assert_same([replace(long, rejected_positions=short.rejected_positions)], [short])


class TestDigest:
    def _changed(self, scripted: Callable[..., Any], change: Callable[[Tensor, int], None]) -> list[int]:
        """Return the steps whose digest differs when `change(logits, forward)` is done to them."""

        def score(ids: Tensor, forward: int) -> Tensor:
            logits = _scores(ids, forward)
            change(logits, forward)
            return logits

        prompt = torch.tensor([[1, 2]])
        before, after = (generate(scripted(f), prompt, **SHAPE) for f in (_scores, score))
        assert before.trajectories == after.trajectories
        differs = before.evidence[0].logits_digests != after.evidence[0].logits_digests
        assert (differs[:, 0] == differs[:, 1]).all()
        return np.flatnonzero(differs[:, 0]).tolist()

    def test_one_bit_at_a_candidate_changes_its_step_alone(self, scripted: Callable[..., Any]) -> None:
        def flip(logits: Tensor, forward: int, position: int) -> None:
            if forward == 3:
                logits.view(torch.int32)[0, position, 4] ^= 1

        last = self._open(scripted)[-1]
        assert self._changed(scripted, partial(flip, position=last)) == [3]

    def test_what_cannot_be_committed_does_not_count(self, scripted: Callable[..., Any]) -> None:
        def change(logits: Tensor, forward: int) -> None:
            logits[:, :2] += 1

        assert self._changed(scripted, change) == []

    def test_zero_and_minus_zero_differ(self, scripted: Callable[..., Any]) -> None:
        def negate(logits: Tensor, forward: int) -> None:
            if forward == 0:
                logits[logits == 0] = -0.0

        assert (_scores(torch.tensor([[1, 2] + [MASK] * 14]), 0)[0, 2:] == 0).any()
        assert self._changed(scripted, negate) == [0]

    @pytest.mark.parametrize("dim", [1, 2], ids=["positions", "tokens"])
    def test_the_same_numbers_elsewhere_are_another_step(self, dim: int) -> None:
        step = _step()
        swapped = step.logits.clone()
        swapped.narrow(dim, 3, 2).copy_(step.logits.narrow(dim, 3, 2).flip(dim))
        (before, _), (after, _) = (_recorded(replace(step, logits=logits)) for logits in (step.logits, swapped))
        assert (before.logits_digests != after.logits_digests).all()

    def test_under_guidance_both_passes_count_and_are_told_apart(self) -> None:
        step = _step()
        other = step.logits + 1
        digests = {
            _recorded(replace(step, logits=torch.cat(passes)))[0].logits_digests.tobytes()
            for passes in [(step.logits, other), (other, step.logits), (step.logits, step.logits), (other, other)]
        }
        assert len(digests) == 4

    def _open(self, scripted: Callable[..., Any]) -> list[int]:
        canvas = generate(scripted(_scores), torch.tensor([[1, 2]]), **SHAPE).trajectories[0].canvas(3)
        return np.flatnonzero(canvas == MASK).tolist()


def test_logits_that_are_no_numbers_are_counted_and_spoil_nothing() -> None:
    step = _step()
    broken = step.logits.clone()
    broken[0, 0] = torch.nan  # no candidate
    broken[0, 3, 2], broken[0, 4, 5], broken[0, 4, 6] = torch.nan, torch.inf, -torch.inf
    zeroed = broken.nan_to_num(0.0, 0.0, 0.0)
    (first, second), (expected, _) = (_recorded(replace(step, logits=logits)) for logits in (broken, zeroed))
    assert first.non_finite.tolist() == [3]
    assert second.non_finite.tolist() == [0]
    assert first.sketches.tolist() == expected.sketches.tolist()
    assert (first.logits_digests != expected.logits_digests).all()


def test_confidences_of_zero_and_none_at_all_are_minus_infinity() -> None:
    confidences = torch.tensor([[0.9, 0.0, -torch.inf, torch.nan, 0.5, 0.25]] * 2)
    (evidence, _) = _recorded(_step(confidences=confidences))
    assert evidence.confidences.tolist() == [-np.inf, -np.inf]
    np.testing.assert_allclose(evidence.rejected_confidences, [[np.nan, np.log(0.5), np.log(0.25), np.nan]], rtol=1e-6)
    assert evidence.rejected_positions.tolist() == [[3, 4, 5, -1]]


@pytest.mark.parametrize(("best", "runner_up"), [(0, 1), (4, 0)])
def test_a_token_alone_has_a_runner_up_that_is_another(best: int, runner_up: int) -> None:
    logits = torch.full((2, 6, VOCABULARY), -torch.inf).index_fill_(-1, torch.tensor([best]), 3.0)
    (evidence, _) = _recorded(_step(logits=logits, scores=logits))
    assert evidence.top_tokens.tolist() == [best] * 2
    assert evidence.runner_up_tokens.tolist() == [runner_up] * 2
    assert evidence.runner_up_scores.tolist() == [-np.inf] * 2


def test_adding_works_on_tensors_that_hold_no_values() -> None:
    # On the meta device anything that needs a value raises.
    for hold in (1, 1 << 40):
        recorder = EvidenceRecorder(torch.zeros(2, dtype=torch.long, device="meta"), hold)
        for noise in (None, torch.zeros(2, 6, VOCABULARY, dtype=torch.float64, device="meta")):
            values = {name: value.to("meta") for name, value in vars(_step()).items() if isinstance(value, Tensor)}
            recorder.add(_step(**values, token_noise=noise, temperature=0.0 if noise is None else 1.0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm device")
@pytest.mark.parametrize("hold", [1, 10_000, None])
def test_a_device_gives_the_same_evidence_and_is_not_waited_for(hold: int | None) -> None:
    noise = torch.rand((2, 6, VOCABULARY), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    steps = [_step(), _step(commits=1), _step(token_noise=noise, temperature=0.5), _step()]
    recorder = EvidenceRecorder(torch.zeros(2, dtype=torch.long, device="cuda"), hold)
    moved = [
        replace(step, **{name: value.cuda() for name, value in vars(step).items() if isinstance(value, Tensor)})
        for step in steps
    ]
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in moved:
            recorder.add(step)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    for found, expected in zip(recorder.finish(), _recorded(*steps), strict=True):
        for name, column in vars(expected).items():
            # Logarithms may differ by a last bit; everything else is whole numbers.
            tolerance = 1e-6 if "scores" in name or "confidences" in name else 0.0
            np.testing.assert_allclose(getattr(found, name), column, rtol=tolerance, err_msg=name)
