"""Where what was returned lies on the canvas: output without its prompt, cut short, or of nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import difftrace
from difftrace.capture import Captured
from difftrace.core.errors import CaptureError
from difftrace.core.policies import judge
from difftrace.core.run import Run
from difftrace.models import LoadedModel
from loops.llada2 import LLaDA2Model
from loops.model import MASK
from loops.truth import Truth

Canvas = Callable[..., Tensor]


def _generated(model: Any, ids: Tensor, new: int, **arguments: Any) -> tuple[difftrace.capture.Recorder, Tensor]:
    with difftrace.record(model) as rec:
        output = model.generate(ids, max_new_tokens=new, **arguments)
    return rec, output


@pytest.mark.parametrize(("prompt", "new"), [(8, 4), (8, 1), (3, 6), (1, 4)])
def test_a_causal_answer_without_its_prompt_lies_behind_it(llama: Any, prompt: int, new: int) -> None:
    ids = torch.arange(5, 5 + 2 * prompt).view(2, prompt)
    rec, output = _generated(llama, ids, new, attention_mask=torch.ones_like(ids))
    whole = rec.capture(output)
    assert whole.verified
    assert [one.final.tolist() for one in whole.trajectories] == output.tolist()
    assert rec.capture(output[:, prompt:]) == whole


def test_causal_answers_of_a_padded_batch_lie_behind_their_prompts(llama: Any) -> None:
    ids = torch.tensor([[0, 0, 0, 13, 17], [5, 9, 11, 13, 17]])
    rec, output = _generated(llama, ids, 4, attention_mask=(ids != 0).long())
    assert rec.capture(output[:, 5:]) == rec.capture(output)


def test_a_causal_answer_that_repeats_its_prompt_lies_behind_it(llama: Any) -> None:
    # The model says its only token again and again.
    own = llama.forward
    llama.forward = lambda *args, **kwargs: _favouring(own(*args, **kwargs), 7)
    try:
        rec, output = _generated(llama, torch.tensor([[7, 7, 7]]), 3)
    finally:
        del llama.forward
    assert output.tolist() == [[7] * 6]
    captured = rec.capture(output[:, 3:])
    assert captured == rec.capture(output)
    assert captured.trajectories[0].positions.tolist() == [3, 4, 5]


def _favouring(answer: Any, token: int) -> Any:
    answer.logits[..., token] = 1e4
    return answer


def test_without_a_mask_the_place_of_a_shorter_output_is_asked_for() -> None:
    model = LLaDA2Model()
    model.truth = Truth(model)
    with difftrace.record(model) as rec:
        output = model.generate(torch.tensor([[3, 1, 4, 1, 5]]))
    assert rec.engine == "generic"
    with pytest.raises(CaptureError, match=r"16 tokens where the canvas has 24.*: give mask_id= or prompt_length="):
        rec.run(output)
    model.truth = Truth(model)
    with difftrace.record(model, prompt_length=5) as rec:
        output = model.generate(torch.tensor([[3, 1, 4, 1, 5]]))
    (found,) = rec.trajectories(output)
    assert found.final[5:21].tolist() == output[0].tolist()
    assert found.final[:5].tolist() == [3, 1, 4, 1, 5]
    assert MASK not in found.final[:21]


def _record(model: Any, canvases: list[Tensor], output: Any, **options: Any) -> Captured:
    with difftrace.record(model, **options) as rec:
        for ids in canvases:
            model(ids)
    return rec.capture(output)


def test_answers_behind_prompts_of_several_lengths_are_found(scorer: Any, canvas: Canvas) -> None:
    captured = _record(scorer, [canvas("1____", "123__"), canvas("15___", "1234_")], [[5, 6, 7, 8], [4, 5]])
    assert [one.final.tolist() for one in captured.trajectories] == [[1, 5, 6, 7, 8], [1, 2, 3, 4, 5]]
    assert captured.verified


@pytest.mark.parametrize(
    "nothing", [torch.zeros((1, 0), dtype=torch.long), [[]], [()]], ids=["tensor", "lists", "tuple"]
)
def test_an_answer_cut_to_nothing_leaves_all_that_was_masked_unverified(
    scorer: Any, canvas: Canvas, nothing: Any
) -> None:
    captured = _record(scorer, [canvas("12__"), canvas("12_4")], nothing, engine="llada")
    assert captured.unverified == ((2,),)
    assert captured.trajectories[0].final.tolist() == [1, 2, 9, 4]


def test_one_row_of_a_batch_may_be_cut_to_nothing(scorer: Any, canvas: Canvas) -> None:
    shown = [canvas("12__", "34__"), canvas("125_", "34_6")]
    captured = _record(scorer, shown, [[5, 7], []], engine="llada")
    assert captured.unverified == ((), (2,))
    assert captured.trajectories[0].final.tolist() == [1, 2, 5, 7]


@pytest.mark.parametrize("token", [2**31, 2**40, -1])
def test_output_of_what_are_no_token_ids_is_refused(scorer: Any, canvas: Canvas, token: int) -> None:
    with pytest.raises(CaptureError, match=f"row 0 of the output holds {token}, which is no token id"):
        _record(scorer, [canvas("1__")], [[1, 2, token]])


def _run(loaded: LoadedModel, rows: list[str], shift: int = 0, **options: Any) -> Run:
    """Record a loop that fills `rows`, in which `_` is a mask, a position a step; its tokens are `shift` off."""
    mask, tokenizer = loaded.config.mask_token_id, loaded.tokenizer
    assert tokenizer is not None
    ids = [
        [token for part in row.split("_") for token in (*(tokenizer.encode(part) if part else ()), mask)][:-1]
        for row in rows
    ]
    width = max(map(len, ids))
    x = torch.tensor([row + [mask] * (width - len(row)) for row in ids])
    with torch.no_grad(), difftrace.record(loaded, **options) as rec:
        while (x == mask).any():
            scores, tokens = loaded.model(x).logits.softmax(-1).max(-1)
            tokens = tokens + shift
            best = scores.masked_fill(x != mask, -1).argmax(1, keepdim=True)
            x.scatter_(1, best, torch.where(x.gather(1, best) == mask, tokens, x).gather(1, best))
    return rec.run(x)


@pytest.mark.parametrize("options", [{}, {"prompt_length": 12}], ids=["found", "told, too long"])
@pytest.mark.parametrize("row", ["12 + __ = 42", "12 + 30 = ____\n", "_2 + 30 = 42"])
def test_a_text_begins_with_the_first_mask_whatever_lies_behind_it(
    reference_model: LoadedModel, row: str, options: Any
) -> None:
    run = _run(reference_model, [row], **options)
    (found,) = run.trajectories
    assert reference_model.tokenizer is not None
    begin = int(found.positions.min())
    assert run.texts == (reference_model.tokenizer.decode(found.final[begin:].tolist()),)
    assert found.num_events == row.count("_")


def test_texts_of_prompts_of_several_lengths_begin_behind_each(reference_model: LoadedModel) -> None:
    run = _run(reference_model, ["1 + 2 = ______", "12 + 30 = ____"])
    assert run.texts is not None
    assert reference_model.tokenizer is not None
    first, second = (one.final.tolist() for one in run.trajectories)
    assert run.texts == (
        reference_model.tokenizer.decode(first[8:]),
        reference_model.tokenizer.decode(second[10:]),
    )
    assert run.texts[0]


def test_other_tokens_within_a_text_are_another_text(reference_model: LoadedModel) -> None:
    golden, other = (_run(reference_model, ["12 + __ = 42"], shift=shift).to_baseline(None) for shift in (0, 1))
    assert not judge(difftrace.classify(golden, other), "text").passes


@pytest.mark.parametrize("length", [5, 50])
def test_a_prompt_longer_than_its_canvas_is_refused(scorer: Any, canvas: Canvas, length: int) -> None:
    with pytest.raises(CaptureError, match=f"prompt_length={length}, but a canvas has 4 positions"):
        _record(scorer, [canvas("12__")], canvas("1234"), prompt_length=length)


def test_masks_within_a_text_are_unverified_without_output(scorer: Any, canvas: Canvas) -> None:
    captured = _record(scorer, [canvas("1_3_5"), canvas("123_5")], None, engine="llada")
    assert captured.unverified == ((3,),)
