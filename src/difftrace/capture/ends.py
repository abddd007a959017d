"""Where the rows that an engine returned lie on its canvas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from difftrace.capture.canvases import UNSEEN
from difftrace.core.errors import CaptureError

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Placed:
    """One returned row: its tokens from canvas position `start` on."""

    tokens: Ints
    start: int

    @property
    def end(self) -> int:
        """The canvas position behind the last."""
        return self.start + self.tokens.size


def place(
    tokens: Ints, start: int | None, last: Ints, trusted: npt.NDArray[np.bool_], starts: Sequence[int], row: int
) -> Placed:
    """Find where the returned `tokens` start on a canvas that was last seen as `last` [L], UNSEEN where it was not.

    The first of `starts` does at which they repeat what is `trusted` (bool [L]) not to have changed since; a canvas
    returned whole starts at 0.

    Raises:
        CaptureError: they start nowhere.
    """
    if start is not None:
        return Placed(tokens, start)
    whole = tokens.size == last.size
    for candidate in [0] if whole else starts:
        if _first_contradiction(tokens, candidate, last, trusted) is None:
            return Placed(tokens, candidate)
    position = _first_contradiction(tokens, 0, last, trusted)
    assert position is not None
    where = "" if whole else f", nor did any part of it that starts at {', '.join(map(str, starts[1:]))}"
    raise CaptureError(
        f"row {row} of the output is not what was recorded: its {tokens.size} tokens hold {tokens[position]} at "
        f"position {position}, where the canvas of {last.size} held {last[position]}{where}. Give rec the output of "
        "the recorded run, as the loop returned it"
    )


def _first_contradiction(tokens: Ints, start: int, last: Ints, trusted: npt.NDArray[np.bool_]) -> int | None:
    """Return the index in `tokens` of the first that is not what is trusted to be there, None where all are."""
    shared = min(tokens.size, last.size - start)
    if shared <= 0:
        return None if trusted.sum() == 0 else 0
    window = slice(start, start + shared)
    wrong = trusted[window] & (last[window] != UNSEEN) & (tokens[:shared] != last[window])
    return int(wrong.argmax()) if wrong.any() else None


def prompt_end(initial: Ints, mask_id: int | None) -> int:
    """Return where the masks that end every canvas of `initial` [B, L] start: what comes before is the prompt."""
    if mask_id is None:
        return 0
    given = (initial != mask_id) & (initial != UNSEEN)
    behind = given[:, ::-1].argmax(axis=1)
    ends = np.where(given.any(axis=1), initial.shape[1] - behind, 0)
    return int(ends.max(initial=0))


def padding_of(mask: npt.NDArray[np.int64] | None) -> int:
    """Return how many positions the attention mask [L] of a row hides at its start."""
    return 0 if mask is None or mask.all() else int(np.argmax(mask != 0))
