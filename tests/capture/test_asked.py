"""What cannot be meant is refused in one sentence that names it, before or after the loop and never within."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import difftrace
from difftrace.capture import LoopAdapter, registry
from difftrace.core.errors import CaptureError

Canvas = Callable[..., Tensor]


@pytest.mark.parametrize("value", ["31", 31.0, [31], torch.tensor(31), True, -1, 2**31, 10**12])
@pytest.mark.parametrize("name", ["mask_id", "prompt_length"])
def test_numbers_have_to_be_whole_numbers(scorer: Any, name: str, value: Any) -> None:
    with pytest.raises(CaptureError, match=f"{name}=.*: it must be a whole number from 0 to 2147483647, or None"):
        difftrace.record(scorer, **{name: value})


def test_numbers_of_numpy_are_numbers(scorer: Any, canvas: Canvas) -> None:
    with difftrace.record(scorer, mask_id=np.int64(9), prompt_length=np.int32(1)) as rec:  # type: ignore[arg-type]
        scorer(canvas("1_"))
    run = rec.run(canvas("12"))
    assert run.model is not None
    assert type(run.model.mask_token_id) is int


@pytest.mark.parametrize("value", ["no", 0, 1])
@pytest.mark.parametrize("name", ["rewrites", "audit", "across_ranks"])
def test_what_is_true_or_false_is_nothing_else(scorer: Any, name: str, value: Any) -> None:
    with pytest.raises(CaptureError, match=rf"{name}=.*: it must be True, False or None"):
        difftrace.record(scorer, **{name: value})


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"t": float("nan")}, r"arguments\['t'\] is nan: it must be text, a finite number"),
        ({"t": float("inf")}, r"arguments\['t'\] is inf"),
        ({"t": object()}, r"arguments\['t'\] is <object object"),
        ({"stop": [1, 2]}, r"arguments\['stop'\] is \[1, 2\]"),
        ({1: 2}, "the name 1 is no text"),
        (["a"], "arguments must map names to values, it is a list"),
        ({"unverified_positions": 3}, "is what the recording itself notes"),
    ],
)
def test_arguments_that_no_baseline_can_keep_are_named(scorer: Any, arguments: Any, reason: str) -> None:
    with pytest.raises(CaptureError, match=reason):
        difftrace.record(scorer, arguments=arguments)


def test_steps_that_are_no_canvases_are_refused(canvas: Canvas) -> None:
    x = [1, 9]
    with difftrace.record(None, engine="steps", mask_id=9) as rec:
        for wrong in (None, "ab", [[1], [1, 2]], [True, False], [1.0, 2.0]):
            with pytest.raises(CaptureError, match="before must be a canvas of token ids"):
                rec.step(wrong, x)
        for row in ("0", 0.0, False):
            with pytest.raises(CaptureError, match=r"row=.*: it must be the number of a row"):
                rec.step(x, [1, 2], row=row)  # type: ignore[arg-type]


@pytest.mark.parametrize("token", [-1, 2**31, 2**40])
def test_what_are_no_token_ids_is_refused(scorer: Any, canvas: Canvas, token: int) -> None:
    scorer.forward = lambda ids: torch.zeros(*ids.shape, 10)
    ids = torch.tensor([[1, token]])
    with (
        pytest.raises(CaptureError, match=f"call 0 of the model holds {token}, which is no token id"),
        difftrace.record(scorer) as rec,
    ):
        scorer(ids)
    with (
        pytest.raises(CaptureError, match=rf"call 0 of rec\.step, after, holds {token}, which is no token id"),
        difftrace.record(None, engine="steps") as rec,
    ):
        rec.step(canvas("1_"), ids)


@pytest.mark.parametrize("shape", [(0, 3), (1, 0)])
def test_a_canvas_of_nothing_does_not_break_the_loop(scorer: Any, shape: tuple[int, int]) -> None:
    reached = []

    def loop() -> None:
        scorer(torch.zeros(shape, dtype=torch.long))
        reached.append(True)

    refused = pytest.raises(CaptureError, match=rf"call 0 of the model shows no tokens: its canvas is \[{shape[0]}, ")
    with refused, difftrace.record(scorer):
        loop()
    assert reached


class _Answering(nn.Module):
    """Answers with logits of a kind that nothing can be concluded from."""

    def __init__(self, vocabulary: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.vocabulary, self.dtype = vocabulary, dtype

    def forward(self, ids: Tensor) -> Any:
        return SimpleNamespace(logits=torch.zeros(*ids.shape, self.vocabulary).to(self.dtype))


@pytest.mark.parametrize(
    ("vocabulary", "dtype", "said"),
    [(0, torch.float32, r"float32 \[1, 2, 0\]"), (10, torch.float8_e4m3fn, r"float8_e4m3fn \[1, 2, 10\]")],
)
def test_logits_that_cannot_be_reduced_are_noted(
    canvas: Canvas, vocabulary: int, dtype: torch.dtype, said: str
) -> None:
    model = _Answering(vocabulary, dtype)
    with difftrace.record(model, mask_id=9) as rec:
        model(canvas("1_"))
    captured = rec.capture(canvas("12"))
    assert captured.evidences is None
    (note,) = captured.notes
    assert note == f"no evidence was recorded: the logits are {said}".replace("\\", "")


def test_an_adapter_that_fails_to_say_whether_it_matches_is_named(scorer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(LoopAdapter):
        name = "failing"

        def matches(self, target: Any) -> bool:
            raise ValueError("boom")

    monkeypatch.setattr(registry, "_all", lambda: iter([Failing()]))
    with pytest.raises(CaptureError, match=r"the adapter 'failing' .* fails .* ValueError: boom\. Name the engine"):
        difftrace.record(scorer)
    assert difftrace.record(scorer, engine="generic").engine == "generic"
