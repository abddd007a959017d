"""A tape and the engine's return value, put together into trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from difftrace.capture.adapter import Adapter, Forward
from difftrace.capture.adapter import Final as Returned
from difftrace.capture.batch import apart, forwards_of, rows_of_batch
from difftrace.capture.canvases import (
    UNSEEN,
    events_between,
    filled,
    length_of,
    refuse_masked_prompt,
    refuse_rewrites,
    shown,
)
from difftrace.capture.captured import Captured
from difftrace.capture.ends import Placed, padding_of, place, prompt_end
from difftrace.capture.evidence import Seen, evidences_of
from difftrace.capture.runs import RowRun, check_against_calls, run_of_commits, run_of_forwards, run_of_histories
from difftrace.capture.tape import Call, Played
from difftrace.core.audit import Audit
from difftrace.core.errors import CaptureError
from difftrace.core.evidence import Evidence
from difftrace.core.trajectory import Trajectory

Ints = npt.NDArray[np.int32]

_MANY: Final = 5


@dataclass(frozen=True)
class Reading:
    """How a tape is to be read: `rewrites` and `prompt_length` None leave it to the adapter and the canvases."""

    adapter: Adapter
    mask_id: int | None
    rewrites: bool
    prompt_length: int | None = None


def assemble(played: Played, output: Any, reading: Reading, audit: Audit | None = None) -> Captured:
    """Return what was recorded, the last commits taken from `output`, None where that is not known.

    `audit` counts calls of the model as steps, or steps that were told where no calls were seen.

    Raises:
        CaptureError: there is nothing recorded, or it contradicts itself or the output.
    """
    returned = _returned(output, reading.adapter)
    steps: list[int] = []
    histories = None if output is None else reading.adapter.canvases(output)
    forwards, hidden = _forwards(played, reading, None if returned is None else len(returned))
    if played.commits:
        check_against_calls(played.commits, forwards, hidden)
        runs = run_of_commits(played.commits)
    elif histories is not None:
        runs = run_of_histories(histories)
    else:
        runs, steps = _run_of_calls(forwards, hidden, reading)
    if returned is not None and len(returned) != len(runs):
        raise CaptureError(f"the output has {len(returned)} rows, but {len(runs)} were recorded")
    masks = _masks(played, len(runs))
    end = _prompt_end(runs, reading)
    first = forwards[0].offset if forwards and not (played.commits or histories) else 0
    outside = played.prompt
    rows = [
        _row(
            run,
            None if returned is None else _without_prompt(returned[row], run, row, outside),
            masks[row],
            end,
            first,
            reading,
            row,
        )
        for row, run in enumerate(runs)
    ]
    trajectories = tuple(_trajectory(one, row, outside, masks[row], end) for row, one in enumerate(rows))
    evidences = _evidences(played, reading, trajectories, steps)
    return Captured(
        trajectories,
        tuple(one.unverified for one in rows),
        end,
        evidences,
        _notes(rows, reading, output, played),
        None if audit is None else _audited(audit, played, steps),
    )


def _audited(audit: Audit, played: Played, steps: Sequence[int]) -> Audit:
    if played.calls:
        # A history tells no calls from others: each is a step then.
        decided_on = [commit.calls - 1 for commit in played.commits] or steps or range(len(played.calls))
        return audit.at_steps(decided_on)
    return audit.at_told_steps()


def _evidences(
    played: Played, reading: Reading, trajectories: Sequence[Trajectory], steps: Sequence[int]
) -> tuple[Evidence, ...] | None:
    """Return the evidence of each row, None where the scores were not recorded, or not of these steps."""
    calls = played.calls
    if played.commits:
        # Each told step decided on the call before it, or on what it was told with.
        steps = [commit.calls - 1 for commit in played.commits] if calls else range(len(played.commits))
        calls = calls or [Call(commit.before, 0, {}) for commit in played.commits]
        if any(commit.row is not None for commit in played.commits) or list(steps) != sorted({*steps}) or -1 in steps:
            return None
    if played.scores is None or not steps:
        return None
    guided = len(played.scores.rows) > len(trajectories)
    mask = None if reading.adapter.candidates == "next" else reading.mask_id
    seen = Seen(played.scores, calls, steps, mask, guided, reading.adapter.by_probability)
    return evidences_of(seen, trajectories)


@dataclass(frozen=True)
class _Row:
    """One row put together: its canvases [S + 1, L] are those of `trajectory.canvas`, UNSEEN where they grow."""

    canvases: Ints
    unverified: tuple[int, ...]
    unscored: int
    fill: int


def _returned(output: Any, adapter: Adapter) -> Sequence[Returned] | None:
    if output is None:
        return None
    returned = adapter.finals(output)
    if returned is None:
        raise CaptureError(
            f"the output, a {type(output).__name__}, holds no token ids that the adapter {adapter.name!r} knows of: "
            "give the canvases themselves, integers [rows, length]"
        )
    return returned


def _without_prompt(final: Returned, run: RowRun, row: int, outside: npt.NDArray[np.int64] | None) -> Returned:
    """Return the canvas of a row that was returned with the prompt [B, P] that lies outside it before it."""
    if outside is None or final.start is not None or final.tokens.size <= run.canvases.shape[1]:
        return final
    prompt = outside[row]
    return Returned(final.tokens[prompt.size :]) if np.array_equal(final.tokens[: prompt.size], prompt) else final


def _forwards(played: Played, reading: Reading, returned: int | None) -> tuple[list[Forward], list[bool]]:
    """Return what the calls say of the batch, and which of them show other canvases than the loop's."""
    if not played.calls:
        return [], []
    rows = rows_of_batch(played.calls, reading.mask_id, returned)
    forwards = forwards_of(played.calls, rows, reading.mask_id)
    return forwards, apart(forwards, reading.mask_id)


def _run_of_calls(
    forwards: Sequence[Forward], hidden: Sequence[bool], reading: Reading
) -> tuple[list[RowRun], list[int]]:
    """Return each row's run, and which calls are its steps."""
    shows = [index for index, skip in enumerate(hidden) if not skip]
    kept = [forwards[index] for index in shows]
    decides = list(reading.adapter.decides(kept, reading.mask_id)) if kept else []
    if len(decides) != len(kept):
        raise CaptureError(f"adapter {reading.adapter.name!r} judged {len(decides)} of {len(kept)} calls")
    if not any(decides):
        raise CaptureError(
            "the model's forward was never called while recording, so there is nothing to make a trajectory of: record "
            "the model that the loop calls (in this process), or use rec.step"
            if not kept
            else f"none of the {len(kept)} calls of the model was a step by the adapter {reading.adapter.name!r}"
        )
    runs = run_of_forwards(kept, shown(kept, length_of(kept)), decides, reading.adapter.shift)
    return runs, [index for index, step in zip(shows, decides, strict=True) if step]


def _prompt_end(runs: Sequence[RowRun], reading: Reading) -> int:
    if reading.prompt_length is not None:
        return reading.prompt_length
    if reading.adapter.grows:
        # What the first call showed.
        return max(int((run.canvases[0] != UNSEEN).sum()) for run in runs)
    if len({run.canvases.shape[1] for run in runs}) > 1:
        return min(prompt_end(run.canvases[:1], reading.mask_id) for run in runs)
    return prompt_end(np.stack([run.canvases[0] for run in runs]), reading.mask_id)


def _row(
    run: RowRun,
    final: Returned | None,
    mask: npt.NDArray[np.int64] | None,
    end: int,
    first: int,
    reading: Reading,
    row: int,
) -> _Row:
    canvases, last = run.canvases, run.canvases[-1]
    length = last.size
    covered = np.zeros(length, dtype=bool)
    if final is not None:
        placed = _placed(final, run, mask, end, reading, row)
        if placed.end > length:
            canvases = np.pad(canvases, ((0, 0), (0, placed.end - length)), constant_values=UNSEEN)
            covered = np.zeros(placed.end, dtype=bool)
            last = canvases[-1]
        covered[placed.start : placed.end] = True
        canvases = canvases.copy()
        canvases[-1, placed.start : placed.end] = placed.tokens
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
    if not run.ended:
        refuse_masked_prompt(events, canvases[0], end, reading.mask_id, row)
    # A prompt that still is what it was is none of the loop's doing.
    given = (np.arange(covered.size) < end) & (canvases[0] == canvases[-1])
    open_ends = ~covered & ~given & (not run.ended)
    if not reading.rewrites and reading.mask_id is not None:
        # What is committed stays, so only masks can have changed unseen.
        open_ends &= canvases[-1] == reading.mask_id
    unscored = 0
    if run.scored is not None:
        scored = np.pad(run.scored, ((0, 0), (0, max(0, canvases.shape[1] - run.scored.shape[1]))))
        unscored = int((~scored[events.steps, events.positions]).sum())
    fill = 0 if reading.mask_id is None else reading.mask_id
    return _Row(canvases, tuple(np.flatnonzero(open_ends).tolist()), unscored, fill)


def _placed(
    final: Returned, run: RowRun, mask: npt.NDArray[np.int64] | None, end: int, reading: Reading, row: int
) -> Placed:
    initial, last = run.canvases[0], run.canvases[-1]
    tokens = np.asarray(final.tokens)
    if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
        raise CaptureError(f"row {row} of the output is no row of token ids but {tokens.dtype} {list(tokens.shape)}")
    known = last != UNSEEN
    trusted = known.copy()
    if not run.ended:
        trusted &= initial == last
        if reading.mask_id is None:
            trusted[:] = False
        else:
            trusted &= initial != reading.mask_id
            if not reading.rewrites:
                trusted |= known & (last != reading.mask_id)
    if run.ended or tokens.size == last.size:
        # What was changed since is named below, with its step.
        trusted &= (np.arange(last.size) < end) & known
    starts = list(dict.fromkeys([0, padding_of(mask), end]))
    return place(tokens.astype(np.int32), final.start, last, trusted, starts, row)


def _refuse_change(last: Ints, final: Ints, step: int, row: int) -> None:
    wrong = np.flatnonzero((last != final) & (last != UNSEEN))
    if wrong.size:
        position = int(wrong[0])
        raise CaptureError(
            f"row {row}, position {position}: the canvas held {last[position]} after the last step ({step}), but the "
            f"engine returned {final[position]}. Call rec.step for every change of the canvas, the last one too"
        )


def _masks(played: Played, rows: int) -> list[npt.NDArray[np.int64] | None]:
    if played.attention_mask is None or played.attention_mask.shape[0] < rows:
        return [None] * rows
    return list(played.attention_mask[:rows])


def _trajectory(
    one: _Row, row: int, outside: npt.NDArray[np.int64] | None, mask: npt.NDArray[np.int64] | None, end: int
) -> Trajectory:
    length = one.canvases.shape[1]
    initial = np.where(one.canvases[0] == UNSEEN, one.fill, one.canvases[0])
    padding = padding_of(mask)
    prompt = initial[padding:end] if outside is None else outside[row]
    events = events_between(one.canvases)
    if mask is not None:
        mask = np.concatenate((mask, np.ones(max(0, length - mask.size), dtype=mask.dtype)))[:length]
    trajectory = Trajectory(
        prompt=prompt,
        initial=initial,
        steps=events.steps,
        positions=events.positions,
        tokens=events.tokens,
        num_steps=len(one.canvases) - 1,
        padding=padding,
        attention_mask=None if mask is None else mask.astype(np.int32),
    )
    if not np.array_equal(trajectory.final, one.canvases[-1]):
        raise CaptureError(f"row {row}: the recorded events do not lead to the canvas that the engine returned")
    return trajectory


def _notes(rows: Sequence[_Row], reading: Reading, output: Any, played: Played) -> tuple[str, ...]:
    notes = [] if played.unscored is None else [f"no evidence was recorded: {played.unscored}"]
    for row, one in enumerate(rows):
        if one.unverified:
            some = ", ".join(map(str, one.unverified[:_MANY])) + (", …" if len(one.unverified) > _MANY else "")
            why = "no output was given" if output is None else "the output ends before"
            notes.append(
                f"row {row}: unverified tail of {len(one.unverified)} positions ({some}), because {why}: what the last "
                "step committed there is not known"
            )
        if one.unscored:
            notes.append(
                f"row {row}: {one.unscored} commits at positions that the model was not asked about at their step"
            )
        if reading.mask_id is not None:
            left = set(np.flatnonzero(one.canvases[-1] == reading.mask_id).tolist()).difference(one.unverified)
            if left and not reading.adapter.grows:
                notes.append(f"row {row}: {len(left)} positions still hold the mask in the end")
    return tuple(notes)
