"""Calls that are not the steps of one loop over one canvas are refused, however well they would pass for rewriting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import difftrace
from difftrace.capture import Captured, LoopAdapter
from difftrace.core.errors import CaptureError
from loops import dinfer, llada2, remdm
from loops.cases import PROMPT
from loops.model import MASK, TinyDenoiser
from loops.truth import Truth

Canvas = Callable[..., Tensor]
_LENGTH, _STEPS = 13, 8


def _begun() -> Tensor:
    return torch.tensor([[3, 1, 4, 1, 5] + [MASK] * _STEPS])


def _filled(canvas: Tensor, logits: Tensor) -> Tensor:
    """Return `canvas` with its surest mask filled in."""
    scores, tokens = logits.softmax(-1).max(-1)
    best = scores.masked_fill(canvas != MASK, -1).argmax(1, keepdim=True)
    return canvas.scatter(1, best, tokens.gather(1, best))


def _negative_prompt(model: nn.Module) -> Tensor:
    x = _begun()
    for _ in range(_STEPS):
        other = torch.cat((torch.tensor([[7, 8, 7, 8, 7]]), x[:, 5:]), 1)
        x = _filled(x, 2 * model(x).logits - model(other).logits)
    return x


def _unconditional_first(model: nn.Module, steps: int = _STEPS) -> Tensor:
    x = _begun()
    for _ in range(steps):
        without = x.clone()
        without[:, :5] = MASK
        x = _filled(x, -model(without).logits + 2 * model(x).logits)
    return x


def _without_the_prompt(model: nn.Module) -> Tensor:
    x = _begun()
    for _ in range(_STEPS):
        logits = 2 * model(x).logits
        logits[:, 5:] -= model(x[:, 5:], position_ids=torch.arange(5, _LENGTH)).logits
        x = _filled(x, logits)
    return x


def _gathered(model: nn.Module) -> Tensor:
    x = _begun()
    for _ in range(_STEPS):
        at = torch.cat((torch.arange(5), 5 + (x[0, 5:] == MASK).nonzero()[:, 0]))
        logits = torch.zeros(1, _LENGTH, 32)
        logits[:, at] = model(x[:, at], position_ids=at).logits
        x = _filled(x, logits)
    return x


def _windows(model: nn.Module) -> Tensor:
    x = _begun()
    model(x)
    for _ in range(_STEPS):
        x = torch.cat((x[:, :5], _filled(x[:, 5:], model(x[:, 5:], position_ids=torch.arange(5, _LENGTH)).logits)), 1)
    return x


def _ensemble(model: nn.Module) -> Tensor:
    x = _begun()
    for _ in range(_STEPS):
        logits = torch.zeros(1)
        for member in (5, 6):
            perturbed = x.clone()
            perturbed[:, member] = MASK
            logits = logits + model(perturbed).logits
        x = _filled(x, logits)
    return x


def _rolled(model: nn.Module, shift: int) -> Iterator[Tensor]:
    """Fill positions from left to right, with tokens that are `shift` off."""
    x = _begun()
    for position in range(5, _LENGTH):
        tokens = (model(x).logits.argmax(-1) + shift) % 20
        x = x.clone()
        x[:, position] = tokens[:, position]
        yield x


def _two_at_once(model: nn.Module) -> Tensor:
    return [one for one, _ in zip(_rolled(model, 0), _rolled(model, 1), strict=True)][-1]


def _another_prompt_first(model: nn.Module) -> Tensor:
    x = _begun() % 7 + 1
    x[:, 5:] = MASK
    for start in (x, _begun()):
        x = start
        for _ in range(_STEPS):
            x = _filled(x, model(x).logits)
    return x


def _twice(model: nn.Module) -> Tensor:
    for _ in range(2):
        *_, x = _rolled(model, 0)
    return x


_WRONG = {
    "negative prompt": (_negative_prompt, "position 0 of the prompt became token 7 where it held 3"),
    "unconditional first": (_unconditional_first, "two canvases in turn"),
    "unconditional first, two steps": (partial(_unconditional_first, steps=2), "two canvases in turn"),
    "guidance without the prompt": (
        _without_the_prompt,
        "call 1 of the model shows 8 positions where call 0 showed 13",
    ),
    "gathered positions": (_gathered, "call 1 of the model shows 12 positions where call 0 showed 13"),
    "windows": (_windows, "call 1 of the model shows 8 positions where call 0 showed 13, and nothing says which"),
    "ensemble": (_ensemble, "two canvases in turn"),
    "two loops at once": (_two_at_once, "two canvases in turn"),
    "another prompt first": (_another_prompt_first, "step 7, row 0: position 0 of the prompt became token"),
    "two runs": (_twice, "call 8 of the model is back at the first canvas of row 0: several runs"),
}


@pytest.mark.parametrize("name", list(_WRONG))
def test_calls_of_more_than_one_canvas_are_refused(name: str) -> None:
    loop, reason = _WRONG[name]
    model = TinyDenoiser()
    with difftrace.record(model, mask_id=MASK) as rec:
        output = loop(model)
    assert rec.engine == "generic"
    with pytest.raises(CaptureError, match=reason):
        rec.run(output)


def _masks_again(seed: int) -> tuple[Any, Callable[[], Any]]:
    model = TinyDenoiser(seed)
    return model, lambda: remdm.Diffusion(model, Truth(model), eta=0.3).sample()


def _masks_hierarchically(seed: int) -> tuple[Any, Callable[[], Any]]:
    model = TinyDenoiser(seed)
    decoder = dinfer.HierarchyRemaskDecoder(Truth(model), remask_threshold=0.5)
    return model, lambda: dinfer.BlockWiseDiffusionLLM(model, decoder).generate(PROMPT)


def _edits(seed: int) -> tuple[Any, Callable[[], Any]]:
    model = llada2.LLaDA2Model(seed)
    model.truth = Truth(model)
    return model, lambda: model.generate(PROMPT[:1], editing_threshold=0.2)


@pytest.mark.parametrize("loop", [_masks_again, _masks_hierarchically, _edits])
def test_loops_that_mask_again_or_edit_are_recorded(loop: Callable[[int], Any]) -> None:
    for seed in range(10):
        model, generate = loop(seed)
        with torch.random.fork_rng(), difftrace.record(model, engine="generic", mask_id=MASK) as rec:
            torch.manual_seed(seed)
            output = generate()
        assert rec.capture(output).trajectories[0].num_events


def _record(model: Any, canvases: list[Tensor], output: Any, **options: Any) -> Captured:
    with difftrace.record(model, **options) as rec:
        for ids in canvases:
            model(ids)
    return rec.capture(output)


def test_drafts_are_steps_and_it_is_said_that_they_may_be_drafts(scorer: Any, canvas: Canvas) -> None:
    drafts = [canvas("1____"), canvas("1_3__")] * 3 + [canvas("15___"), canvas("15__6"), canvas("157__")]
    captured = _record(scorer, drafts, canvas("15784"))
    assert captured.trajectories[0].num_steps == len(drafts)
    (note,) = (note for note in captured.notes if "alternated" in note)
    assert note.startswith("row 0: position 2 alternated between two tokens over 7 calls of the model")


def test_a_single_mask_may_be_masked_again(scorer: Any, canvas: Canvas) -> None:
    captured = _record(scorer, [canvas("1_3"), canvas("123"), canvas("1_3")], canvas("143"))
    assert captured.trajectories[0].steps.tolist() == [0, 1, 2]


def test_a_loop_may_change_what_it_was_given_behind_the_prompt_that_was_told(scorer: Any, canvas: Canvas) -> None:
    shown = [canvas("12_4_"), canvas("12356")]
    with pytest.raises(CaptureError, match=r"position 3 of the prompt became token 5 where it held 4.*prompt_length="):
        _record(scorer, shown, canvas("12356"))
    captured = _record(scorer, shown, canvas("12356"), prompt_length=2)
    assert captured.trajectories[0].positions.tolist() == [2, 3, 4]
    # Without a mask in it all of a text is there to be changed.
    assert _record(scorer, [canvas("1234"), canvas("1264")], canvas("1264")).trajectories[0].num_events == 1


class _Timed(nn.Module):
    """Takes a time before its canvas, under names of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = TinyDenoiser()

    def forward(self, t: Tensor, canvas: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.inner(canvas if canvas.dim() == 2 else canvas[None]).logits)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("time", [torch.long, torch.float32])
def test_a_canvas_behind_a_time_is_found(rows: int, time: torch.dtype) -> None:
    model, x = _Timed(), _begun().repeat(rows, 1)
    with difftrace.record(model, mask_id=MASK) as rec:
        for step in range(_STEPS):
            x = _filled(x, model(torch.full((rows,), step, dtype=time), x).logits)
    captured = rec.capture(x)
    assert captured.trajectories[0].num_events == _STEPS
    assert captured.prompt_end == 5
    assert not captured.notes


def test_one_row_beside_a_time_of_its_kind_is_asked_about() -> None:
    model = _Timed()
    with pytest.raises(CaptureError, match=r"several rows of integers \(t, canvas\)"), difftrace.record(model):
        model(torch.tensor([3]), _begun()[0])


def test_a_window_may_be_placed_by_an_adapter(scorer: Any, canvas: Canvas) -> None:
    class Placing(LoopAdapter):
        name = "placing"

        def look(self, arguments: Any) -> Any:
            seen = super().look(arguments)
            return type(seen)(seen.ids, offset=4 - seen.ids.shape[1])

    captured = _record(scorer, [canvas("12__"), canvas("3_")], canvas("1234"), engine=Placing())
    assert captured.trajectories[0].positions.tolist() == [2, 3]


@pytest.mark.parametrize("first", [2, 4, 6])
def test_causal_runs_recorded_as_one_are_refused(llama: Any, first: int) -> None:
    ids = torch.tensor([[5, 9, 11]])
    with difftrace.record(llama) as rec:
        for new in (first, 6):
            output = llama.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new)
    with pytest.raises(CaptureError, match=r"a text of 3 tokens, the call before it one of \d: several runs were"):
        rec.run(output)
