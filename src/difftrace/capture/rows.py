"""One row of a recording put together: its canvases, with the last commits taken from what the engine returned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from difftrace.capture.adapter import Final
from difftrace.capture.canvases import UNSEEN, Events, events_between, filled, refuse_rewrites
from difftrace.capture.ends import generated_from, padding_of, placed
from difftrace.capture.plausible import in_turn, refuse_changed_prompt, refuse_second_run
from difftrace.capture.reading import Reading
from difftrace.capture.runs import RowRun
from difftrace.core.errors import CaptureError
from difftrace.core.trajectory import Trajectory

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Row:
    """One row put together: its canvases [S + 1, L] are those of `trajectory.canvas`, UNSEEN where they grow, and
    `events` lead from one to the next; what is not its prompt begins at position `begin`."""

    canvases: Ints
    events: Events
    unverified: tuple[int, ...]
    unscored: int
    fill: int
    begin: int
    notes: tuple[str, ...] = ()


def row_of(
    run: RowRun,
    final: Final | None,
    mask: npt.NDArray[np.int64] | None,
    end: int,
    first: int,
    reading: Reading,
    row: int,
) -> Row:
    """Return row number `row`, whose prompt ends at position `end` and whose first window starts at `first`.

    Raises:
        CaptureError: what was recorded contradicts itself or what was returned, `final`.
    """
    canvases, last = run.canvases, run.canvases[-1]
    length = last.size
    covered = np.zeros(length, dtype=bool)
    if final is not None:
        where = placed(final, run, mask, end, reading, row)
        if where.end > length:
            canvases = np.pad(canvases, ((0, 0), (0, where.end - length)), constant_values=UNSEEN)
            covered = np.zeros(where.end, dtype=bool)
            last = canvases[-1]
        covered[where.start : where.end] = True
        canvases = canvases.copy()
        canvases[-1, where.start : where.end] = where.tokens
        if run.ended:
            _refuse_change(last, canvases[-1], len(canvases) - 2, row)
    canvases = filled(canvases, reading.mask_id, first, reading.adapter.grows)
    if (canvases[-1] == UNSEEN).any():
        raise CaptureError(
            f"row {row}: nothing showed what position {int((canvases[-1] == UNSEEN).argmax())} holds: give the output, "
            "and mask_id where the engine has a mask"
        )
    events = events_between(canvases)
    if not reading.rewrites:
        refuse_rewrites(events, reading.mask_id, row)
    notes = () if run.ended else _of_one_loop(run, events, canvases[0], end, reading, row)
    # A prompt that still is what it was is none of the loop's doing; a mask is no prompt.
    given = (np.arange(covered.size) < end) & (canvases[0] == canvases[-1])
    if reading.mask_id is not None:
        given &= canvases[0] != reading.mask_id
    open_ends = ~covered & ~given & (not run.ended)
    if not reading.rewrites and reading.mask_id is not None:
        # What is committed stays, so only masks can have changed unseen.
        open_ends &= canvases[-1] == reading.mask_id
    unscored = 0
    if run.scored is not None:
        behind = events.positions >= run.scored.shape[1]
        scored = run.scored[events.steps[~behind], events.positions[~behind]]
        unscored = int(behind.sum() + (~scored).sum())
    changed = (canvases != canvases[0]).any(axis=0)
    begin = generated_from(canvases[0], changed, end, padding_of(mask), reading.mask_id)
    fill = 0 if reading.mask_id is None else reading.mask_id
    return Row(canvases, events, tuple(np.flatnonzero(open_ends).tolist()), unscored, fill, begin, notes)


def _of_one_loop(run: RowRun, events: Events, initial: Ints, end: int, reading: Reading, row: int) -> tuple[str, ...]:
    """Check that the calls of `run` are one loop's over one canvas, as far as that shows; return what is to be said."""
    mask = reading.mask_id
    if mask is None:
        return ()
    # What a loop was given whole it is there to change.
    if (initial == mask).any() or reading.prompt_length is not None:
        refuse_changed_prompt(events, initial, end, mask, row)
    if not reading.rewrites:
        return ()
    seen = run.canvases[:-1]
    refuse_second_run(seen, mask, row)
    said = in_turn(seen, mask, row)
    return () if said is None else (said,)


def _refuse_change(last: Ints, final: Ints, step: int, row: int) -> None:
    wrong = np.flatnonzero((last != final) & (last != UNSEEN))
    if wrong.size:
        position = int(wrong[0])
        raise CaptureError(
            f"row {row}, position {position}: the canvas held {last[position]} after the last step ({step}), but the "
            f"engine returned {final[position]}. Call rec.step for every change of the canvas, the last one too"
        )


def trajectory_of(
    one: Row, row: int, outside: npt.NDArray[np.int64] | None, mask: npt.NDArray[np.int64] | None, end: int
) -> Trajectory:
    """Return the trajectory of a row, whose prompt is `outside` [B, P] where it is not on the canvas.

    Raises:
        CaptureError: its events do not lead to its last canvas.
    """
    length = one.canvases.shape[1]
    initial = np.where(one.canvases[0] == UNSEEN, one.fill, one.canvases[0])
    padding = padding_of(mask)
    prompt = initial[padding:end] if outside is None else outside[row]
    if mask is not None:
        mask = np.concatenate((mask, np.ones(max(0, length - mask.size), dtype=mask.dtype)))[:length]
    trajectory = Trajectory(
        prompt=prompt,
        initial=initial,
        steps=one.events.steps,
        positions=one.events.positions,
        tokens=one.events.tokens,
        num_steps=len(one.canvases) - 1,
        padding=padding,
        attention_mask=None if mask is None else mask.astype(np.int32),
    )
    if not np.array_equal(trajectory.final, one.canvases[-1]):
        raise CaptureError(f"row {row}: the recorded events do not lead to the canvas that the engine returned")
    return trajectory
