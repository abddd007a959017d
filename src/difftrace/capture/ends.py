"""Where the rows that an engine returned lie on its canvas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from difftrace.capture.adapter import Adapter, Final
from difftrace.capture.canvases import UNSEEN
from difftrace.capture.reading import Reading
from difftrace.capture.runs import RowRun
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


def returned_rows(output: Any, adapter: Adapter) -> Sequence[Final] | None:
    """Return the rows of `output`, None where there is none.

    Raises:
        CaptureError: it holds no token ids.
    """
    if output is None:
        return None
    returned = adapter.finals(output)
    if returned is None:
        raise CaptureError(
            f"the output, a {type(output).__name__}, holds no token ids that the adapter {adapter.name!r} knows of: "
            "give the canvases themselves, integers [rows, length]"
        )
    return returned


def without_prompt(final: Final, run: RowRun, row: int, outside: npt.NDArray[np.int64] | None) -> Final:
    """Return the canvas of a row that was returned with the prompt [B, P] that lies outside it before it."""
    if outside is None or final.start is not None or final.tokens.size <= run.canvases.shape[1]:
        return final
    prompt = outside[row]
    return Final(final.tokens[prompt.size :]) if np.array_equal(final.tokens[: prompt.size], prompt) else final


def prompt_end_of(runs: Sequence[RowRun], reading: Reading) -> int:
    """Return the canvas position behind the prompts of a batch."""
    if reading.prompt_length is not None:
        return reading.prompt_length
    if reading.adapter.grows:
        # What the first call showed.
        return max(int((run.canvases[0] != UNSEEN).sum()) for run in runs)
    if len({run.canvases.shape[1] for run in runs}) > 1:
        return min(prompt_end(run.canvases[:1], reading.mask_id) for run in runs)
    return prompt_end(np.stack([run.canvases[0] for run in runs]), reading.mask_id)


def placed(
    final: Final, run: RowRun, mask: npt.NDArray[np.int64] | None, end: int, reading: Reading, row: int
) -> Placed:
    """Return where the returned row `final` lies on the canvas of `run`.

    Raises:
        CaptureError: nowhere, or it holds no token ids.
    """
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
