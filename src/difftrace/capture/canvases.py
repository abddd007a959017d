"""Whole canvases from the windows that the model was shown, and events from canvases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from difftrace.capture.adapter import Forward
from difftrace.core.errors import CaptureError

Ints = npt.NDArray[np.int32]

# A position that nothing has shown yet.
UNSEEN: Final = -1


@dataclass(frozen=True)
class Events:
    """What changed from one canvas to the next, by step, then position; `previous` are the tokens before."""

    steps: Ints
    positions: Ints
    tokens: Ints
    previous: Ints


def length_of(forwards: Sequence[Forward]) -> int:
    """Return how long a canvas must be to hold every window."""
    return max((forward.offset + forward.ids.shape[1] for forward in forwards), default=0)


def shown(forwards: Sequence[Forward], length: int) -> Ints:
    """Return the canvases [T, B, L] as far as each of T calls and those before it have shown them, else UNSEEN."""
    canvases = np.full((len(forwards), forwards[0].ids.shape[0], length), UNSEEN, dtype=np.int32)
    for index, forward in enumerate(forwards):
        if index:
            canvases[index] = canvases[index - 1]
        canvases[index, :, forward.offset : forward.offset + forward.ids.shape[1]] = forward.ids
    return canvases


def filled(canvases: Ints, mask_id: int | None, given_below: int, grows: bool) -> Ints:
    """Return one row's canvases [S + 1, L] with what they held where nothing had shown it yet.

    That is the mask. Below `given_below`, where the first window starts, and where there is no mask, it is what was
    shown there first. In an engine that `grows` positions stay unseen until they are shown.
    """
    unseen = canvases == UNSEEN
    if not unseen.any():
        return canvases
    first = canvases[unseen.argmin(axis=0), np.arange(canvases.shape[1])]
    before = first if mask_id is None else np.full_like(first, mask_id)
    if grows:
        before = np.full_like(first, UNSEEN)
    before[:given_below] = first[:given_below]
    return np.where(unseen, before, canvases)


def events_between(canvases: Ints) -> Events:
    """Return the events of one row whose canvases were `canvases` [S + 1, L], the last one after the last step."""
    steps, positions = (index.astype(np.int32) for index in np.nonzero(canvases[1:] != canvases[:-1]))
    return Events(steps, positions, canvases[steps + 1, positions], canvases[steps, positions])


def refuse_rewrites(events: Events, mask_id: int | None, row: int) -> None:
    """Check that no position was committed twice.

    Raises:
        CaptureError: one was.
    """
    again = events.previous != (UNSEEN if mask_id is None else mask_id)
    again &= events.previous != UNSEEN
    if mask_id is None:
        order = np.lexsort((events.steps, events.positions))
        again = np.zeros_like(again)
        again[order[1:]] = np.diff(events.positions[order]) == 0
    if again.any():
        at = int(again.argmax())
        raise CaptureError(
            f"step {events.steps[at]}, row {row}, position {events.positions[at]}: token {events.previous[at]} became "
            f"{events.tokens[at]}, but this engine never changes what it has committed. Either several runs were "
            "recorded as one, or the loop remasks or edits: then record it with rewrites=True"
        )
