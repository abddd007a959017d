"""What the model's calls show: windows, batches, guidance, padding, and the ends of a run."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import difftrace
from difftrace.capture import Captured
from difftrace.core.errors import CaptureError

MASK = 9
Canvas = Callable[..., Tensor]


def _events(captured: Captured, row: int = 0) -> list[tuple[int, int, int]]:
    one = captured.trajectories[row]
    return list(zip(one.steps.tolist(), one.positions.tolist(), one.tokens.tolist(), strict=True))


def _record(model: Any, canvases: list[Tensor], output: Any = None, **options: Any) -> Captured:
    """Record a loop that shows `canvases` in turn."""
    with difftrace.record(model, **options) as rec:
        for ids in canvases:
            model(ids)
    return rec.capture(output)


def test_ids_are_copied_before_the_loop_writes_to_them(scorer: Any, canvas: Canvas) -> None:
    x = canvas("12__")
    with difftrace.record(scorer) as rec:
        for position in (3, 2):
            scorer(x)
            x[0, position] = position
    captured = rec.capture(x)
    assert _events(captured) == [(0, 3, 3), (1, 2, 2)]
    assert captured.trajectories[0].prompt.tolist() == [1, 2]
    assert captured.verified
    assert not captured.notes


def test_calls_of_forward_itself_are_seen(scorer: Any, canvas: Canvas) -> None:
    with difftrace.record(scorer) as rec:
        scorer.forward(canvas("1_"))
    assert _events(rec.capture(canvas("12"))) == [(0, 1, 2)]


def test_forward_keeps_its_signature_and_answers_and_is_put_back(scorer: Any, canvas: Canvas) -> None:
    before, answer = inspect.signature(scorer.forward), scorer(canvas("1_")).logits
    with difftrace.record(scorer):
        assert "forward" in vars(scorer)
        assert inspect.signature(scorer.forward) == before
        assert torch.equal(scorer(canvas("1_"), attention_mask=None).logits, answer)
    assert "forward" not in vars(scorer)


def test_a_forward_that_was_the_instances_own_is_put_back(scorer: Any, canvas: Canvas) -> None:
    mine = scorer.forward
    scorer.forward = lambda *args, **kwargs: mine(*args, **kwargs)
    own = scorer.forward
    with difftrace.record(scorer) as rec:
        scorer(canvas("1_"))
    assert scorer.forward is own
    assert _events(rec.capture(canvas("12"))) == [(0, 1, 2)]


def test_a_call_that_fails_is_no_step(scorer: Any, canvas: Canvas) -> None:
    with difftrace.record(scorer) as rec:
        with pytest.raises(IndexError):
            scorer(canvas("1_") + 50)
        scorer(canvas("1_"))
    assert rec.capture(canvas("12")).trajectories[0].num_steps == 1


def test_steps_that_commit_nothing_are_steps(scorer: Any, canvas: Canvas) -> None:
    shown = [canvas("1__"), canvas("1__"), canvas("12_"), canvas("12_")]
    captured = _record(scorer, shown, canvas("12_"))
    assert _events(captured) == [(1, 1, 2)]
    assert captured.trajectories[0].num_steps == 4
    assert captured.notes == ("row 0: 1 positions still hold the mask in the end",)


def test_a_mask_that_was_predicted_changes_nothing_and_can_be_taken_again(scorer: Any, canvas: Canvas) -> None:
    # The first step takes the mask itself at position 1, so the canvas stays as it is.
    captured = _record(scorer, [canvas("1__"), canvas("1__"), canvas("1_3")], canvas("123"), engine="llada")
    assert _events(captured) == [(1, 2, 3), (2, 1, 2)]


def test_guidance_doubles_rows_with_the_prompt_masked(scorer: Any, canvas: Canvas) -> None:
    shown = [canvas("12__", "34__", "____", "____"), canvas("125_", "34_6", "__5_", "___6")]
    captured = _record(scorer, shown, canvas("1257", "3486"))
    assert [_events(captured, row) for row in (0, 1)] == [[(0, 2, 5), (1, 3, 7)], [(0, 3, 6), (1, 2, 8)]]
    assert len(_record(scorer, shown).trajectories) == 2


def test_guidance_of_some_steps_only_is_recognised(scorer: Any, canvas: Canvas) -> None:
    captured = _record(scorer, [canvas("12__", "____"), canvas("125_")], canvas("1257"))
    assert _events(captured) == [(0, 2, 5), (1, 3, 7)]


def test_guidance_in_a_call_of_its_own_is_no_step(scorer: Any, canvas: Canvas) -> None:
    shown = [canvas("12__"), canvas("____"), canvas("125_"), canvas("__5_")]
    captured = _record(scorer, shown, canvas("1257"))
    assert _events(captured) == [(0, 2, 5), (1, 3, 7)]
    assert captured.trajectories[0].num_steps == 2


def test_equal_prompts_are_a_batch_and_not_guidance(scorer: Any, canvas: Canvas) -> None:
    shown = [canvas("12__", "12__"), canvas("125_", "12_6")]
    assert len(_record(scorer, shown).trajectories) == 2
    assert len(_record(scorer, shown, canvas("1257", "1286")).trajectories) == 2


def test_left_padding_comes_from_the_attention_mask(scorer: Any, canvas: Canvas) -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    with difftrace.record(scorer) as rec:
        scorer(canvas("001__", "123__"), mask)
        scorer(canvas("0014_", "1234_"), mask)
    first, second = rec.trajectories(canvas("00145", "12345"))
    assert (first.padding, second.padding) == (2, 0)
    assert (first.prompt.tolist(), second.prompt.tolist()) == ([1], [1, 2, 3])
    assert first.attention_mask is not None
    assert first.attention_mask.tolist() == [0, 0, 1, 1, 1]
    assert second.attention_mask is None


def test_rows_returned_without_their_padding_are_found(scorer: Any, canvas: Canvas) -> None:
    with difftrace.record(scorer) as rec:
        scorer(canvas("001__"), torch.tensor([[0, 0, 1, 1, 1]]))
    assert _events(rec.capture(canvas("145"))) == [(0, 3, 4), (0, 4, 5)]


@pytest.mark.parametrize("where", ["cache", "tuple cache", "replaced"])
def test_windows_of_a_cache_become_whole_canvases(scorer: Any, canvas: Canvas, where: str) -> None:
    class Cache:
        def get_seq_length(self) -> int:
            return 2

    options: dict[str, Any] = {
        "cache": {"past_key_values": Cache()},
        "tuple cache": {"past_key_values": ((torch.zeros(1, 1, 2, 4),) * 2,)},
        "replaced": {
            "replace_position": torch.tensor([[False, False, True, True, False, False]]),
            "past_key_values": (),
        },
    }[where]
    with difftrace.record(scorer) as rec:
        scorer(canvas("12____"))
        scorer(canvas("3_"), **options)
        scorer(canvas("1234__"))
        scorer(canvas("1234_6"))
    captured = rec.capture(canvas("123456"))
    assert _events(captured) == [(0, 2, 3), (1, 3, 4), (2, 5, 6), (3, 4, 5)]
    assert not captured.notes


def test_a_commit_at_a_position_that_was_not_scored_is_noted(scorer: Any, canvas: Canvas) -> None:
    with difftrace.record(scorer) as rec:
        scorer(canvas("12____"))
        scorer(canvas("3_"), replace_position=torch.tensor([[0, 0, 1, 1, 0, 0]]))
    captured = rec.capture(canvas("123456"))
    assert captured.evidences is None
    why, where = captured.notes
    assert why.startswith("no evidence was recorded: a step changed a position that the model had not been asked about")
    assert where == "row 0: 2 commits at positions that the model was not asked about at their step"


def test_a_loop_that_appends_tokens_has_to_say_so_where_there_is_no_mask(canvas: Canvas) -> None:
    class Plain(torch.nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot((ids + 1) % 9, 9).float()

    model, found = Plain(), {}
    for engine in ("auto", "causal"):
        with difftrace.record(model, engine=engine) as rec:
            x = canvas("12")
            for _ in range(3):
                x = torch.cat((x, model(x)[:, -1:].argmax(-1)), dim=1)
        found[engine] = rec
    with pytest.raises(CaptureError, match=r"grew from 2 to 4 positions over 3 calls .* give engine='causal'"):
        found["auto"].capture(x)
    assert _events(found["causal"].capture(x)) == [(0, 2, 3), (1, 3, 4), (2, 4, 5)]


def test_an_answer_of_a_causal_model_may_be_cut_short(canvas: Canvas) -> None:
    class Plain(torch.nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot((ids + 1) % 9, 9).float()

    model = Plain()
    with difftrace.record(model, engine="causal") as rec:
        x = canvas("12")
        for _ in range(4):
            x = torch.cat((x, model(x)[:, -1:].argmax(-1)), dim=1)
    for output in (x, x[:, :5], x[:, 2:4], None):
        captured = rec.capture(output)
        assert captured.evidences is not None
        [evidence] = captured.evidences
        trajectory = captured.trajectories[0]
        assert evidence.top_tokens.tolist() == trajectory.tokens.tolist()
        evidence.check_fit(trajectory)


def test_a_cache_of_unknown_length_is_refused_by_name(scorer: Any, canvas: Canvas) -> None:
    with pytest.raises(CaptureError, match="a cache of type dict, which does not say"), difftrace.record(scorer):
        scorer(canvas("1_"), past_key_values={"keys": 1})
    assert "forward" not in vars(scorer)


def test_a_canvas_that_grows_by_blocks_held_masks_before(scorer: Any, canvas: Canvas) -> None:
    shown = [canvas("1__"), canvas("12_"), canvas("123__"), canvas("123_5")]
    captured = _record(scorer, shown, canvas("12345"))
    assert captured.trajectories[0].initial.tolist() == [1, MASK, MASK, MASK, MASK]
    assert _events(captured) == [(0, 1, 2), (1, 2, 3), (2, 4, 5), (3, 3, 4)]


def test_output_cut_at_the_end_of_text_leaves_what_was_seen(scorer: Any, canvas: Canvas) -> None:
    shown = [canvas("1____"), canvas("12__5")]
    captured = _record(scorer, shown, [[1, 2, 3]], engine="llada")
    assert captured.trajectories[0].final.tolist() == [1, 2, 3, MASK, 5]
    assert captured.unverified == ((3,),)
    assert "unverified tail of 1 positions (3), because the output ends before" in captured.notes[0]
    # A loop that may change what it committed may have changed position 4 too.
    assert _record(scorer, shown, [[1, 2, 3]]).unverified == ((3, 4),)


def test_output_without_the_prompt_is_found_behind_it(scorer: Any, canvas: Canvas) -> None:
    captured = _record(scorer, [canvas("12__"), canvas("12_4")], canvas("34"))
    assert _events(captured) == [(0, 3, 4), (1, 2, 3)]
    assert captured.verified


def test_without_output_the_tail_is_unverified(scorer: Any, canvas: Canvas) -> None:
    captured = _record(scorer, [canvas("12__"), canvas("12_4")], engine="llada")
    assert captured.unverified == ((2,),)
    assert not captured.verified
    assert _events(captured) == [(0, 3, 4)]
    run = difftrace.record(scorer)
    with run as rec:
        scorer(canvas("12_"))
    assert rec.run().sampler.arguments == {"unverified_positions": 1}


def test_output_of_another_run_is_refused(scorer: Any, canvas: Canvas) -> None:
    shown = [canvas("12__"), canvas("12_4")]
    with pytest.raises(CaptureError, match="row 0 of the output is not what was recorded"):
        _record(scorer, shown, canvas("7734"))
    with pytest.raises(CaptureError, match="the output has 3 rows, but 1 were recorded"):
        _record(scorer, shown, canvas("1234", "1234", "1234"))
    with pytest.raises(CaptureError, match="a str, holds no token ids"):
        _record(scorer, shown, "text")


def test_rewriting_is_an_error_where_commits_are_final(scorer: Any, canvas: Canvas) -> None:
    shown = [canvas("1__"), canvas("12_"), canvas("15_")]
    with pytest.raises(CaptureError, match="step 1, row 0, position 1: token 2 became 5, but this engine never"):
        _record(scorer, shown, canvas("153"), engine="llada")
    captured = _record(scorer, shown, canvas("153"), engine="llada", rewrites=True)
    assert _events(captured) == [(0, 1, 2), (1, 1, 5), (2, 2, 3)]


def test_a_batch_that_changes_its_rows_is_refused(scorer: Any, canvas: Canvas) -> None:
    with pytest.raises(CaptureError, match="call 1 of the model has 1 rows where the batch has 2"):
        _record(scorer, [canvas("1_", "2_"), canvas("1_")], canvas("13", "24"))


def test_a_loop_that_never_calls_the_model_is_an_error(scorer: Any, canvas: Canvas) -> None:
    with pytest.raises(CaptureError, match="was never called while recording"):
        _record(scorer, [], canvas("12"))


@pytest.mark.parametrize(
    "output",
    [
        lambda x: x[0],
        lambda x: (x, 7),
        lambda x: {"sequences": x},
        lambda x: x.numpy(),
        lambda x: x.tolist(),
        lambda x: [row for row in x],  # noqa: C416
        lambda x: (x.tolist(), "text"),
    ],
    ids=["one row", "with a count", "sequences", "array", "lists", "list of rows", "tuple of lists"],
)
def test_canvases_are_found_in_what_engines_return(
    scorer: Any, canvas: Canvas, output: Callable[[Tensor], Any]
) -> None:
    assert _events(_record(scorer, [canvas("1_")], output(canvas("12")))) == [(0, 1, 2)]


def test_calls_for_guidance_that_are_not_recognised_are_named(scorer: Any, canvas: Canvas) -> None:
    shown = [canvas("12__"), canvas("12__"), canvas("___4"), canvas("12_4")]
    with pytest.raises(CaptureError, match="step 1, row 0: position 0 of the prompt became the mask"):
        _record(scorer, shown, canvas("1234"))


@pytest.mark.parametrize("own", [False, True], ids=["the class's", "its own"])
def test_a_copy_made_while_recording_is_not_recorded(canvas: Canvas, own: bool) -> None:
    model = torch.nn.Embedding(10, 10).requires_grad_(False)
    if own:
        model.forward = _ones  # type: ignore[method-assign]
    with difftrace.record(model, mask_id=MASK) as rec:
        twin = copy.deepcopy(model)
        # What the model is put together with again where it is taken apart, as for another process.
        made, arguments = model.forward.__reduce__()
        model(canvas("1_"))
        answer = twin(canvas("1_"))
    assert rec.capture(canvas("12")).trajectories[0].num_steps == 1
    assert torch.equal(answer, model(canvas("1_")))
    assert made(*arguments) == model.forward
    twin.weight.zero_()
    again = copy.deepcopy(twin)
    assert torch.equal(again(canvas("1_")), _ones(canvas("1_")) if own else torch.zeros(1, 2, 10))
    assert torch.equal(twin(canvas("1_")), again(canvas("1_")))
    assert ("forward" in vars(model)) is own


def _ones(input: Tensor) -> Tensor:  # noqa: A002
    return torch.ones(*input.shape, 10)
