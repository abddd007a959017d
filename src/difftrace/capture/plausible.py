"""Whether a model's calls can be the steps of one loop over one canvas: what is not is refused, or said.

Loops may rewrite what they have committed, so that any canvases at all would pass for steps: those of guidance with
another prompt, of ensembles, of two runs. How these differ from loops that mask again and edit was tried on the
remasking loops of tests/capture/loops, with hundreds of seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from difftrace.capture.canvases import UNSEEN, Events
from difftrace.capture.tape import Call
from difftrace.core.errors import CaptureError

Ints = npt.NDArray[np.int32]

_WAYS_OUT: Final = (
    "name its engine, tell the steps with rec.step and engine='steps', or write an adapter whose decides() or look() "
    "leaves those calls out"
)
# Calls that a position alternates over: loops that mask again reach 4 often, 7 of a dozen rarely where both halves of
# the calls fit together. Two canvases in turn reach the run's length.
_SURELY: Final = 8
_PERHAPS: Final = 5


def refuse_unplaced(calls: Sequence[Call]) -> None:
    """Check that no call shows less of the canvas than one before it, without saying which part.

    Raises:
        CaptureError: one does.
    """
    widest, at = 0, 0
    for index, call in enumerate(calls):
        width = call.ids.shape[1]
        if not call.placed and width < widest:
            raise CaptureError(
                f"call {index} of the model shows {width} positions where call {at} showed {widest}, and nothing says "
                "which: neither replace_position nor a cache that tells its length, under a usual name. Is it a "
                "window (an adapter's look() may say its offset), another run, guidance without the prompt, or a "
                f"canvas that shrinks? For such loops {_WAYS_OUT}"
            )
        if width > widest:
            widest, at = width, index


def refuse_growth(calls: Sequence[Call]) -> None:
    """Check that calls of a loop without a mask, whose canvas is one from the start, show no more and more of it.

    Raises:
        CaptureError: they do: what a new position held before is not known, so that nothing would be seen to change.
    """
    ends = [call.offset + call.ids.shape[1] for call in calls]
    if all(end > before for before, end in pairwise(ends)) and len(ends) > 1:
        raise CaptureError(
            f"the canvas grew from {ends[0]} to {ends[-1]} positions over {len(ends)} calls of the model, and without "
            "a mask nothing says what a new position held before: give engine='causal' for a loop that appends tokens, "
            "or mask_id= for one that fills masks in"
        )


def refuse_changed_prompt(events: Events, initial: Ints, end: int, mask_id: int, row: int) -> None:
    """Check that the prompt, what `initial` [L] gives before position `end`, stays as it is.

    Raises:
        CaptureError: it does not, so that calls of something else were taken for steps.
    """
    changed = (events.positions < end) & (initial[events.positions] != mask_id)
    changed &= initial[events.positions] != UNSEEN
    if not changed.any():
        return
    at = int(changed.argmax())
    token = events.tokens[at]
    raise CaptureError(
        f"step {events.steps[at]}, row {row}: position {events.positions[at]} of the prompt became "
        f"{'the mask' if token == mask_id else f'token {token} where it held {events.previous[at]}'}. The calls are "
        "not of one canvas, as with guidance in calls of its own, windows that do not say where they lie, rows in "
        f"another order, or several runs recorded as one: record one run at a time, {_WAYS_OUT}. If the loop does "
        "change what it was given, say with prompt_length= where the prompt ends that it does not change"
    )


def refuse_second_run(canvases: Ints, mask_id: int, row: int) -> None:
    """Check that the canvases [T, L] of one row's calls do not start again.

    Raises:
        CaptureError: they do.
    """
    first = canvases[0]
    for index in range(2, len(canvases)):
        back = canvases[index] != canvases[index - 1]
        # A single mask may be masked again.
        if back.sum() > 1 and (first == mask_id).any() and np.array_equal(canvases[index], first):
            raise CaptureError(
                f"call {index} of the model is back at the first canvas of row {row}: several runs were recorded as "
                "one, a warm-up perhaps. Record one run at a time"
            )


def in_turn(canvases: Ints, mask_id: int, row: int) -> str | None:
    """Return what is to be said of canvases [T, L] of one row whose positions alternate; None where nothing is.

    Raises:
        CaptureError: they are two canvases in turn, each of which keeps what it has committed.
    """
    position, calls = _alternating(canvases)
    if calls < _PERHAPS and calls < len(canvases):
        return None
    steady = [not _rewrites(canvases[half::2], mask_id) for half in (0, 1)]
    what = f"position {position} alternated between two tokens over {calls} calls of the model"
    if all(steady) and calls >= min(_SURELY, max(4, len(canvases))):
        raise CaptureError(
            f"row {row}: {what}, and every second call fits the one before the last. The loop shows the model two "
            "canvases in turn (guidance that calls without the prompt first, an ensemble, two loops at once), which "
            f"are not one run's steps: {_WAYS_OUT}"
        )
    if any(steady) and calls >= _PERHAPS:
        return (
            f"row {row}: {what}: if some calls are of drafts or of other canvases, they were taken for steps all the "
            "same"
        )
    return None


def _alternating(canvases: Ints) -> tuple[int, int]:
    """Return the position that went back and forth over most calls in a row, and over how many."""
    run = np.ones(canvases.shape[1], dtype=np.int64)
    best = run.copy()
    for index in range(1, len(canvases)):
        changes = canvases[index] != canvases[index - 1]
        back = changes & (canvases[index] == canvases[index - 2]) if index > 1 else np.zeros_like(changes)
        run = np.where(back, run + 1, np.where(changes, 2, 1))
        best = np.maximum(best, run)
    position = int(best.argmax())
    return position, int(best[position])


def _rewrites(canvases: Ints, mask_id: int) -> bool:
    committed = (canvases[:-1] != mask_id) & (canvases[:-1] != UNSEEN)
    return bool((committed & (canvases[1:] != canvases[:-1])).any())
