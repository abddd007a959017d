"""Steps that the loop's author tells, alone and beside the calls of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch import Tensor

import difftrace
from difftrace.core.errors import CaptureError

Canvas = Callable[..., Tensor]


def _columns(one: difftrace.Trajectory) -> list[tuple[int, int, int]]:
    return list(zip(one.steps.tolist(), one.positions.tolist(), one.tokens.tolist(), strict=True))


def test_told_steps_need_no_model_and_no_output(canvas: Canvas) -> None:
    with difftrace.record(None, engine="steps", mask_id=9) as rec:
        rec.step(canvas("12__"), canvas("12_4"))
        rec.step(canvas("12_4"), canvas("12_4"))
        rec.step(canvas("12_4"), canvas("1234"))
    captured = rec.capture()
    assert _columns(captured.trajectories[0]) == [(0, 3, 4), (2, 2, 3)]
    assert captured.verified


def test_told_steps_win_where_calls_show_fewer(scorer: Any, canvas: Canvas) -> None:
    # Two changes from one forward: the calls alone would make one step of them.
    with difftrace.record(scorer) as rec:
        scorer(canvas("1__"))
        rec.step(canvas("1__"), canvas("12_"))
        rec.step(canvas("12_"), canvas("123"))
    assert _columns(rec.trajectories(canvas("123"))[0]) == [(0, 1, 2), (1, 2, 3)]


def test_a_contradiction_with_a_call_names_step_and_position(scorer: Any, canvas: Canvas) -> None:
    with difftrace.record(scorer) as rec:
        scorer(canvas("1__"))
        rec.step(canvas("1__"), canvas("12_"))
        scorer(canvas("15_"))
        rec.step(canvas("12_"), canvas("123"))
    with pytest.raises(CaptureError, match=r"before step 1, row 0, position 1 held 2 by rec\.step, but call 1"):
        rec.trajectories(canvas("123"))


def test_a_change_between_told_steps_is_named(scorer: Any, canvas: Canvas) -> None:
    with difftrace.record(scorer, engine="steps") as rec:
        rec.step(canvas("1__"), canvas("12_"))
        rec.step(canvas("124"), canvas("125"))
    with pytest.raises(
        CaptureError, match=r"call 1 of rec\.step, row 0: position 2 held 9 after the step before, and 4"
    ):
        rec.trajectories()


def test_a_change_after_the_last_told_step_is_named(scorer: Any, canvas: Canvas) -> None:
    with difftrace.record(scorer, engine="steps") as rec:
        rec.step(canvas("1__"), canvas("12_"))
    with pytest.raises(CaptureError, match=r"row 0, position 2: the canvas held 9 after the last step \(0\)"):
        rec.trajectories(canvas("123"))


def test_rows_can_be_told_one_by_one_in_steps_of_their_own(scorer: Any, canvas: Canvas) -> None:
    with difftrace.record(scorer) as rec:
        scorer(canvas("1__", "2__"))
        rec.step(canvas("1__")[0], canvas("13_")[0], row=0)
        scorer(canvas("13_", "2__"))
        rec.step(canvas("2__")[0], canvas("245")[0], row=1)
        rec.step(canvas("13_")[0], canvas("134")[0], row=0)
    first, second = rec.trajectories(canvas("134", "245"))
    assert (first.num_steps, second.num_steps) == (2, 1)
    assert _columns(first) == [(0, 1, 3), (1, 2, 4)]
    assert _columns(second) == [(0, 1, 4), (0, 2, 5)]


def test_canvases_are_copied_and_may_be_arrays(canvas: Canvas) -> None:
    x = np.array([[1, 9]])
    with difftrace.record(None, engine="steps", mask_id=9) as rec:
        before = x.copy()
        x[0, 1] = 2
        rec.step(before, x)
        x[0, 1] = 7
    assert rec.trajectories()[0].final.tolist() == [1, 2]


def test_what_is_no_step_is_refused(scorer: Any, canvas: Canvas) -> None:
    x = canvas("1_")
    with difftrace.record(scorer, engine="steps") as rec:
        with pytest.raises(CaptureError, match="before and after are one tensor"):
            rec.step(x, x)
        with pytest.raises(CaptureError, match="differ in shape"):
            rec.step(x, canvas("1__"))
        with pytest.raises(CaptureError, match="row=1 goes with canvases"):
            rec.step(canvas("1_", "2_"), canvas("12", "23"), row=1)
        with pytest.raises(CaptureError, match="before must be a canvas of token ids"):
            rec.step(x.float(), x)
    with pytest.raises(CaptureError, match="although the recording is over"):
        rec.step(x, x.clone())
