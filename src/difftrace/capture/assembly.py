"""A tape and the engine's return value, put together into trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from difftrace.capture.adapter import Forward
from difftrace.capture.batch import apart, forwards_of, rows_of_batch
from difftrace.capture.canvases import length_of, shown
from difftrace.capture.captured import Captured
from difftrace.capture.ends import prompt_end_of, returned_rows, without_prompt
from difftrace.capture.evidence import Seen, evidences_of
from difftrace.capture.plausible import refuse_growth, refuse_unplaced
from difftrace.capture.reading import Reading
from difftrace.capture.rows import Row, row_of, trajectory_of
from difftrace.capture.runs import RowRun, check_against_calls, run_of_commits, run_of_forwards, run_of_histories
from difftrace.capture.tape import Call, Played
from difftrace.core.audit import Audit
from difftrace.core.errors import CaptureError
from difftrace.core.evidence import Evidence
from difftrace.core.trajectory import Trajectory

_MANY: Final = 5
_OTHER_ROWS: Final = "the output has {} rows, but {} were recorded"
_NO_CANDIDATE: Final = (
    "a step changed a position that the model had not been asked about as a mask, as loops do that mask again or edit"
)


def assemble(played: Played, output: Any, reading: Reading, audit: Audit | None = None) -> Captured:
    """Return what was recorded, the last commits taken from `output`, None where that is not known.

    `audit` counts calls of the model as steps, or steps that were told where no calls were seen.

    Raises:
        CaptureError: there is nothing recorded, or it contradicts itself or the output.
    """
    returned = returned_rows(output, reading.adapter)
    steps: list[int] = []
    histories = None if output is None else reading.adapter.canvases(output)
    if returned is not None and played.calls and not played.commits and histories is None:
        _refuse_more_rows(len(returned), played.calls)
    forwards, hidden = _forwards(played, reading, None if returned is None else len(returned))
    if played.commits:
        check_against_calls(played.commits, forwards, hidden)
        runs = run_of_commits(played.commits)
    elif histories is not None:
        runs = run_of_histories(histories)
    else:
        refuse_unplaced(played.calls)
        if reading.mask_id is None and not reading.adapter.grows:
            refuse_growth(played.calls)
        runs, steps = _run_of_calls(forwards, hidden, reading)
    if returned is not None and len(returned) != len(runs):
        raise CaptureError(_OTHER_ROWS.format(len(returned), len(runs)))
    masks = _masks(played, len(runs))
    end = prompt_end_of(runs, reading)
    first = forwards[0].offset if forwards and not (played.commits or histories) else 0
    outside = played.prompt
    rows = [
        row_of(
            run,
            None if returned is None else without_prompt(returned[row], run, row, outside),
            masks[row],
            end,
            first,
            reading,
            row,
        )
        for row, run in enumerate(runs)
    ]
    trajectories = tuple(trajectory_of(one, row, outside, masks[row], end) for row, one in enumerate(rows))
    evidences, why_none = _evidences(played, reading, trajectories, steps)
    return Captured(
        trajectories,
        tuple(one.unverified for one in rows),
        end,
        tuple(one.begin for one in rows),
        evidences,
        _notes(rows, reading, output, why_none),
        None if audit is None else _audited(audit, played, steps),
    )


def _refuse_more_rows(returned: int, calls: Sequence[Call]) -> None:
    """Check that the model was called with as many rows as the output has at least once."""
    most = max(call.ids.shape[0] for call in calls)
    if returned > most:
        raise CaptureError(_OTHER_ROWS.format(returned, most))


def _audited(audit: Audit, played: Played, steps: Sequence[int]) -> Audit:
    if played.calls:
        # A history tells no calls from others: each is a step then.
        decided_on = [commit.calls - 1 for commit in played.commits] or steps or range(len(played.calls))
        return audit.at_steps(decided_on)
    return audit.at_told_steps()


def _evidences(
    played: Played, reading: Reading, trajectories: Sequence[Trajectory], steps: Sequence[int]
) -> tuple[tuple[Evidence, ...] | None, str | None]:
    """Return the evidence of each row, None where the scores were not recorded, or not of these steps, and why that is
    so where it was asked for."""
    calls = played.calls
    if played.commits:
        # Each told step decided on the call before it, or on what it was told with.
        steps = [commit.calls - 1 for commit in played.commits] if calls else range(len(played.commits))
        calls = calls or [Call(commit.before, 0, {}) for commit in played.commits]
        if any(commit.row is not None for commit in played.commits) or list(steps) != sorted({*steps}) or -1 in steps:
            return None, None
    if played.scores is None or not steps:
        return None, played.unscored
    guided = len(played.scores.rows) > len(trajectories)
    mask = None if reading.adapter.candidates == "next" else reading.mask_id
    seen = Seen(played.scores, calls, steps, mask, guided, reading.adapter.by_probability)
    found = evidences_of(seen, trajectories)
    return found, None if found is not None else _NO_CANDIDATE


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


def _masks(played: Played, rows: int) -> list[npt.NDArray[np.int64] | None]:
    if played.attention_mask is None or played.attention_mask.shape[0] < rows:
        return [None] * rows
    return list(played.attention_mask[:rows])


def _notes(rows: Sequence[Row], reading: Reading, output: Any, why_none: str | None) -> tuple[str, ...]:
    notes = [] if why_none is None else [f"no evidence was recorded: {why_none}"]
    for row, one in enumerate(rows):
        notes += one.notes
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
