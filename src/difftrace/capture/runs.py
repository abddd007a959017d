"""The canvases of each row of a run, one before every step and one after the last, from either lane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from difftrace.capture.adapter import Forward
from difftrace.capture.tape import Commit
from difftrace.core.errors import CaptureError

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class RowRun:
    """One row: its canvases before each of S steps and the last one seen, [S + 1, L]; whether the last step's commits
    are in the last one (`ended`), and which positions each step's logits were about, bool
    [S, L] or wider."""

    canvases: Ints
    ended: bool
    scored: npt.NDArray[np.bool_] | None = None


def run_of_forwards(forwards: Sequence[Forward], views: Ints, decides: Sequence[bool], shift: int) -> list[RowRun]:
    """Return each row's run, where the calls that decide are the steps and `views` [T, B, L] is what calls had shown.

    What changed between two steps is the earlier one's commit. The last view stands for the canvas after the last step.
    """
    steps = [index for index, step in enumerate(decides) if step]
    length = views.shape[2]
    scored = np.zeros((len(steps), length + shift), dtype=bool)
    for number, index in enumerate(steps):
        start = forwards[index].offset + shift
        scored[number, start : start + forwards[index].ids.shape[1]] = True
    canvases = views[[*steps, len(forwards) - 1]]
    return [RowRun(canvases[:, row], False, scored) for row in range(views.shape[1])]


def run_of_commits(commits: Sequence[Commit]) -> list[RowRun]:
    """Return each row's run as explicit steps tell it.

    Raises:
        CaptureError: between two steps something changed, or rows have canvases of several lengths.
    """
    whole = [commit for commit in commits if commit.row is None]
    if whole and len(whole) < len(commits):
        raise CaptureError("some calls of rec.step say row=, others give whole batches: keep to one of them")
    rows = whole[0].before.shape[0] if whole else 1 + max(commit.row or 0 for commit in commits)
    found = []
    for row in range(rows):
        mine = [
            (number, commit.before[row if whole else 0], commit.after[row if whole else 0])
            for number, commit in enumerate(commits)
            if (commit.row is None and row < commit.before.shape[0]) or commit.row == row
        ]
        found.append(RowRun(_chain(mine, row), True))
    return found


def run_of_histories(canvases: Sequence[Any]) -> list[RowRun]:
    """Return each row's run from canvases [B, L], the first before any step, then one after each step.

    Raises:
        CaptureError: they are no canvases of one shape.
    """
    arrays = [np.atleast_2d(np.asarray(canvas)).astype(np.int32) for canvas in canvases]
    if len({array.shape for array in arrays}) != 1:
        raise CaptureError("the canvases that the engine returned differ in shape, so no event can be told from them")
    stacked = np.stack(arrays)
    return [RowRun(stacked[:, row], True) for row in range(stacked.shape[1])]


def check_against_calls(commits: Sequence[Commit], forwards: Sequence[Forward], hidden: Sequence[bool]) -> None:
    """Check that the model was called with the canvases that explicit steps say there were.

    Raises:
        CaptureError: a call was not, naming step, row and position.
    """
    for index, (forward, skip) in enumerate(zip(forwards, hidden, strict=True)):
        if skip:
            continue
        for row in range(forward.ids.shape[0]):
            known = _state(commits, row, index)
            if known is None:
                continue
            step, canvas = known
            window = canvas[forward.offset : forward.offset + forward.ids.shape[1]]
            wrong = np.flatnonzero(forward.ids[row, : window.size] != window)
            if wrong.size:
                position = forward.offset + int(wrong[0])
                raise CaptureError(
                    f"rec.step and the model's calls contradict each other: before step {step}, row {row}, "
                    f"position {position} held {canvas[position]} by rec.step, but call {index} of the model was given "
                    f"{forward.ids[row, wrong[0]]}. Call rec.step once for every change of the canvas"
                )


def _state(commits: Sequence[Commit], row: int, call: int) -> tuple[int, npt.NDArray[np.int64]] | None:
    """Return the canvas of `row` when call number `call` was made, and the number of steps it had behind it."""
    mine = [commit for commit in commits if commit.row == row or (commit.row is None and row < len(commit.before))]
    if not mine:
        return None
    behind = [commit for commit in mine if commit.calls <= call]
    canvas = behind[-1].after if behind else mine[0].before
    return len(behind), canvas[0 if mine[0].row is not None else row]


def _chain(steps: Sequence[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]]], row: int) -> Ints:
    if not steps:
        raise CaptureError(f"rec.step was never called for row {row}, but for rows above it")
    for (_, _, after), (number, before, _) in pairwise(steps):
        if before.shape != after.shape:
            raise CaptureError(
                f"call {number} of rec.step gives row {row} a canvas of {before.size} positions, the call before one "
                f"of {after.size}: a recording is of one run"
            )
        wrong = np.flatnonzero(before != after)
        if wrong.size:
            position = int(wrong[0])
            raise CaptureError(
                f"call {number} of rec.step, row {row}: position {position} held {after[position]} after the step "
                f"before, and {before[position]} before this one. Call rec.step for every change of the canvas"
            )
    return np.stack([*(before for _, before, _ in steps), steps[-1][2]]).astype(np.int32)
