"""Evidence of loops written elsewhere: what the model said, and no more than is known of what the loop made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import difftrace
from difftrace.capture import scores
from difftrace.core.evidence import Evidence
from difftrace.core.evidence_columns import LAYOUT
from difftrace.core.run import Run
from difftrace.models import LoadedModel
from difftrace.sampling import Generation, generate

Canvas = Callable[..., Tensor]

_PROMPT, _MASK = torch.tensor([[300, 5, 17], [1, 2, 3]]), torch.tensor([[0, 1, 1], [1, 1, 1]])
_RANKING = {"confidences", "rejected_confidences", "rejected_positions", "rejected_tokens", "candidates", "ties"}


def _recorded(model: LoadedModel, engine: str = "auto", **arguments: Any) -> tuple[Run, Generation]:
    given = {"steps": 10, "gen_length": 12, "block_length": 12, "seed": 1, **arguments}
    with difftrace.record(model, engine=engine) as rec:
        generation = generate(model.model, _PROMPT, attention_mask=_MASK, **given)
    return rec.run(generation.tokens), generation


def _differing(one: Evidence, other: Evidence) -> set[str]:
    same = (np.array_equal(getattr(one, c.name), getattr(other, c.name), equal_nan=c.number == "<f4") for c in LAYOUT)
    return {column.name for column, equal in zip(LAYOUT, same, strict=True) if not equal}


def _unknown(evidence: Evidence) -> set[str]:
    return {c.name for c in LAYOUT if c.number == "<f4" and np.isnan(getattr(evidence, c.name)).all()}


def test_a_greedy_run_of_one_block_has_the_evidence_of_our_own_sampler(conformance_model: LoadedModel) -> None:
    run, generation = _recorded(conformance_model)
    assert run.evidences == tuple(generation.evidence)


def test_what_a_block_kept_from_being_chosen_is_not_known(conformance_model: LoadedModel) -> None:
    run, generation = _recorded(conformance_model, block_length=6)
    assert run.evidences is not None
    for found, own in zip(run.evidences, generation.evidence, strict=True):
        assert found is not None
        # The masks of later blocks could not be committed, which the model's calls do not show.
        assert _differing(found, own) <= _RANKING | {"logits_digests", "sketches", "sketched"}
        assert _unknown(found) == {"confidences", "rejected_confidences"}
        assert np.array_equal(found.top_scores, own.top_scores)


def test_of_another_engine_the_ranking_is_not_known(conformance_model: LoadedModel) -> None:
    run, generation = _recorded(conformance_model, engine="generic")
    assert run.evidences is not None
    assert run.evidences[0] is not None
    assert _unknown(run.evidences[0]) == {"confidences", "rejected_confidences"}
    assert _differing(run.evidences[0], generation.evidence[0]) <= {"confidences", "rejected_confidences", "ties"}


def test_scores_of_guided_or_sampled_runs_are_not_known(conformance_model: LoadedModel) -> None:
    unknown = {"top_scores", "runner_up_scores", "confidences", "rejected_confidences"}
    for changed in ({"cfg_scale": 1.5}, {"temperature": 0.9}):
        run, _ = _recorded(conformance_model, **changed)
        assert run.evidences is not None
        assert run.evidences[0] is not None
        assert _unknown(run.evidences[0]) == unknown, changed


def test_guidance_counts_in_the_digest_of_the_logits(conformance_model: LoadedModel) -> None:
    plain, guided = (_recorded(conformance_model, cfg_scale=scale)[0].evidences for scale in (0.0, 1.5))
    again = _recorded(conformance_model, cfg_scale=1.5)[0].evidences
    assert guided == again
    assert plain is not None
    assert guided is not None
    assert not np.array_equal(plain[0].logits_digests[0], guided[0].logits_digests[0])  # type: ignore[union-attr]


@pytest.fixture
def random_loop(scorer: Any, canvas: Canvas) -> Callable[[int], Run]:
    """Commit what torch's global generator says."""

    def run(seed: int) -> Run:
        x = canvas("1____")
        with torch.random.fork_rng(), difftrace.record(scorer) as rec:
            torch.manual_seed(seed)
            for _ in range(2):
                scorer(x)
                x[0, torch.rand(x.shape).masked_fill(x != 9, 0).argmax()] = 5
        return rec.run(x)

    return run


def test_another_seed_is_known_by_its_random_state(random_loop: Callable[[int], Run]) -> None:
    one, same, other = (random_loop(seed).to_baseline(None) for seed in (0, 0, 5))
    assert one == replace(same)
    found = difftrace.classify(one, other)
    assert found.divergence_class == "RNG"


def test_random_numbers_from_elsewhere_leave_open_why(scorer: Any, canvas: Canvas) -> None:
    runs = []
    for last in ("123", "143"):
        with difftrace.record(scorer) as rec:
            scorer(canvas("1__"))
        runs.append(rec.run(canvas(last)).to_baseline(None))
    found = difftrace.classify(*runs)
    assert found.divergence_class is None
    assert "the logits are equal in every bit" in found.reason
    assert "from a generator of its own" in " ".join(found.cannot_tell)


def test_logits_are_reduced_before_the_loop_writes_to_them(scorer: Any, canvas: Canvas) -> None:
    found = []
    for spoil in (False, True):
        with difftrace.record(scorer) as rec:
            logits = scorer(canvas("12__")).logits
            if spoil:
                logits[:] = -torch.inf
        found.append(rec.run(canvas("1234")).evidences)
    assert found[0] == found[1]


@pytest.mark.parametrize("first", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_a_loop_may_leave_inference_mode_between_its_calls(scorer: Any, canvas: Canvas, first: Any) -> None:
    found = []
    for modes in ((first, torch.no_grad, torch.inference_mode), (torch.no_grad,) * 3):
        with difftrace.record(scorer) as rec:
            for mode, shown in zip(modes, ("12___", "123__", "1234_"), strict=True):
                with mode():
                    scorer(canvas(shown))
        found.append(rec.run(canvas("12345")).evidences)
    assert found[0] is not None
    assert found[0] == found[1]


@pytest.mark.parametrize("hold", [1, 4000])
def test_evidence_does_not_depend_on_how_much_waits(
    conformance_model: LoadedModel, monkeypatch: pytest.MonkeyPatch, hold: int
) -> None:
    usual = _recorded(conformance_model)[0].evidences
    monkeypatch.setattr(scores, "_HOLD", hold)
    monkeypatch.setattr(scores, "_TOGETHER", hold)
    assert _recorded(conformance_model)[0].evidences == usual


def test_windows_of_a_cache_have_evidence(scorer: Any, canvas: Canvas) -> None:
    with difftrace.record(scorer) as rec:
        scorer(canvas("12____"))
        scorer(canvas("3_"), replace_position=torch.tensor([[0, 0, 1, 1, 0, 0]]))
        scorer(canvas("1234__"))
    run = rec.run(canvas("123456"))
    assert run.evidences is not None
    assert run.evidences[0] is not None
    assert run.evidences[0].candidates.tolist() == [4, 1, 2]
    assert run.evidences[0].rejected_positions[0].tolist() == [5, 4, 3, -1]


def test_where_there_is_none_the_reason_is_noted(scorer: Any, canvas: Canvas) -> None:
    own = scorer.forward
    scorer.forward = lambda ids: own(ids).logits[:, -1:]
    with difftrace.record(scorer) as rec:
        scorer(canvas("1_"))
    captured = rec.capture(canvas("12"))
    assert captured.evidences is None
    assert captured.notes == ("no evidence was recorded: the model's answers hold no logits [rows, width, vocabulary]",)
    del scorer.forward
    with difftrace.record(scorer, keep="decisions") as rec:
        scorer(canvas("1_"))
    assert rec.capture(canvas("12")).evidences is None
    assert not rec.capture(canvas("12")).notes


@pytest.mark.parametrize("told", ["beside calls", "alone"])
def test_told_steps_have_the_evidence_of_their_calls_or_of_the_logits_given(
    scorer: Any, canvas: Canvas, told: str
) -> None:
    shown = [canvas("12__"), canvas("12_4"), canvas("1234")]
    with difftrace.record(scorer) as plain:
        for ids in shown[:-1]:
            scorer(ids)
    rec = difftrace.record(scorer, engine="generic" if told == "beside calls" else "steps")
    with rec:
        for before, after in pairwise(shown):
            logits = scorer(before).logits
            rec.step(before, after, logits=None if told == "beside calls" else logits)
    run = rec.run(shown[-1])
    assert run.evidences is not None
    assert run == replace(plain.run(shown[-1]), sampler=run.sampler)


def test_told_steps_without_logits_have_no_evidence(canvas: Canvas) -> None:
    with difftrace.record(None, engine="steps", mask_id=9) as rec:
        rec.step(canvas("1_"), canvas("12"))
    captured = rec.capture()
    assert captured.evidences is None
    assert captured.notes == (
        "no evidence was recorded: the steps were told without logits [rows, length, vocabulary]",
    )


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_the_loop_may_run_in_any_mode(scorer: Any, canvas: Canvas, mode: Callable[[], Any]) -> None:
    found = []
    for inside in (mode, torch.no_grad):
        with difftrace.record(scorer.requires_grad_(True)) as rec, inside():
            scorer(canvas("12__"))
            scorer(canvas("12_4"))
            out = canvas("1234")
        found.append(rec.run(out))
    assert found[0].evidences is not None
    assert found[0] == found[1]
