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
from difftrace.capture.token_ids import refuse_no_ids
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
    if outside is None or final.start is not None:
        return final
    prompt = outside[row]
    is_before = final.tokens.size != run.canvases.shape[1] and np.array_equal(final.tokens[: prompt.size], prompt)
    return Final(final.tokens[prompt.size :] if is_before else final.tokens, start=0)


def prompt_end_of(runs: Sequence[RowRun], reading: Reading) -> int:
    """Return the canvas position behind the prompts of a batch.

    Raises:
        CaptureError: the prompt was said to be longer than a canvas.
    """
    if reading.prompt_length is not None:
        shortest = min(run.canvases.shape[1] for run in runs)
        if reading.prompt_length > shortest:
            raise CaptureError(f"prompt_length={reading.prompt_length}, but a canvas has {shortest} positions")
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
    """Return where the returned row `final` lies on the canvas of `run`, whose prompt ends at `end`.

    Raises:
        CaptureError: nowhere, nothing says where, or it holds no token ids.
    """
    last = run.canvases[-1]
    tokens = _ids_of(final, row)
    if final.thinned:
        return _thinned(tokens, run, end, row)
    if final.start is not None:
        return Placed(tokens, final.start)
    if tokens.size == 0:
        return Placed(tokens, end)
    is_known = run.ended or not reading.rewrites or reading.mask_id is not None or reading.prompt_length is not None
    if tokens.size < last.size and not is_known:
        raise CaptureError(
            f"row {row} of the output has {tokens.size} tokens where the canvas has {last.size}, and without a mask "
            "nothing says where they lie on it: give mask_id= or prompt_length=, or the whole canvas"
        )
    whole = tokens.size == last.size
    trusted = _trusted(run, end, reading)
    if run.ended or whole:
        # What was changed since is named below, with its step.
        trusted &= np.arange(last.size) < end
    if whole and not reading.adapter.grows:
        return Placed(tokens, _start(tokens, run, trusted, [0], end, row))
    # A canvas that grows is a token longer than any call showed; one as long may as well be all behind a short prompt.
    padding = padding_of(mask)
    initial = run.canvases[0]
    changed = (run.canvases != initial).any(axis=0) & (initial != UNSEEN)
    begin = generated_from(initial, changed, end, padding, reading.mask_id)
    starts = [start for start in (0, padding, end, begin) if start < last.size or reading.adapter.grows]
    return Placed(tokens, _start(tokens, run, trusted, list(dict.fromkeys(starts)), begin, row))


def _thinned(tokens: Ints, run: RowRun, end: int, row: int) -> Placed:
    """Return the last canvas of `run`, of which `tokens` have to be all, or what lies behind the prompt, but one token.

    Raises:
        CaptureError: they are not.
    """
    last = run.canvases[-1]
    whole = tokens.size in (last.size, last.size - end)
    kept = [np.ones(last.size, dtype=bool)] if whole else [last != token for token in np.unique(last)]
    parts = [last[keep & (np.arange(last.size) >= start)] for keep in kept for start in (0, end)]
    if run.ended and any(np.array_equal(tokens, part) for part in parts):
        return Placed(last, 0)
    raise CaptureError(
        f"row {row} of the output is not what was recorded: its {tokens.size} tokens are not those of the canvas of "
        f"{last.size}, with or without the prompt, but for one token that was taken out everywhere. Give rec the "
        "output of the recorded run, as the engine returned it"
    )


def _ids_of(final: Final, row: int) -> Ints:
    tokens = np.asarray(final.tokens)
    if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
        raise CaptureError(f"row {row} of the output is no row of token ids but {tokens.dtype} {list(tokens.shape)}")
    refuse_no_ids(tokens, f"row {row} of the output")
    return tokens.astype(np.int32)


def _trusted(run: RowRun, end: int, reading: Reading) -> npt.NDArray[np.bool_]:
    """Return at which positions, bool [L], nothing can have changed since the canvas was last seen."""
    initial, last = run.canvases[0], run.canvases[-1]
    trusted: npt.NDArray[np.bool_] = last != UNSEEN
    if run.ended:
        return trusted
    if reading.rewrites:
        # Without a mask, only of a prompt whose end was told is it known that it is one.
        trusted &= (initial == last) & ((np.arange(last.size) < end) | (reading.mask_id is not None))
        given = initial
    else:
        given = last
    if reading.mask_id is not None:
        trusted &= given != reading.mask_id
    return trusted


def _start(
    tokens: Ints, run: RowRun, trusted: npt.NDArray[np.bool_], starts: Sequence[int], begin: int, row: int
) -> int:
    """Return the one of `starts` at which the returned `tokens` repeat what is `trusted` (bool [L]) to stay.

    Of several it is the one where they repeat most of what was committed, then one where they reach beyond `begin`.

    Raises:
        CaptureError: there is none.
    """
    initial, last = run.canvases[0], run.canvases[-1]
    possible = [start for start in starts if _first_contradiction(tokens, start, last, trusted) is None]
    if possible:
        committed = initial != last
        return max(possible, key=lambda start: (_repeated(tokens, start, last, committed), start + tokens.size > begin))
    position = _first_contradiction(tokens, 0, last, trusted)
    assert position is not None
    where = "" if len(starts) == 1 else f", nor did any part of it that starts at {', '.join(map(str, starts[1:]))}"
    raise CaptureError(
        f"row {row} of the output is not what was recorded: its {tokens.size} tokens hold {tokens[position]} at "
        f"position {position}, where the canvas of {last.size} held {last[position]}{where}. Give rec the output of "
        "the recorded run, as the loop returned it. Calls that show the rows in another order, or windows without "
        "saying where they lie, look the same: tell the steps of such a loop with rec.step"
    )


def _repeated(tokens: Ints, start: int, last: Ints, committed: npt.NDArray[np.bool_]) -> int:
    """Return how many of the `committed` (bool [L]) tokens of a canvas `tokens` repeat from `start` on."""
    shared = max(0, min(tokens.size, last.size - start))
    window = slice(start, start + shared)
    return int((committed[window] & (last[window] == tokens[:shared])).sum())


def _first_contradiction(tokens: Ints, start: int, last: Ints, trusted: npt.NDArray[np.bool_]) -> int | None:
    """Return the index in `tokens` of the first that is not what is trusted to be there, None where all are."""
    shared = min(tokens.size, last.size - start)
    if shared <= 0:
        return None if trusted.sum() == 0 or start == last.size else 0
    window = slice(start, start + shared)
    wrong = trusted[window] & (tokens[:shared] != last[window])
    return int(wrong.argmax()) if wrong.any() else None


def prompt_end(initial: Ints, mask_id: int | None) -> int:
    """Return where the masks that end every canvas of `initial` [B, L] start: what comes before is the prompt."""
    if mask_id is None:
        return 0
    given = (initial != mask_id) & (initial != UNSEEN)
    behind = given[:, ::-1].argmax(axis=1)
    ends = np.where(given.any(axis=1), initial.shape[1] - behind, 0)
    return int(ends.max(initial=0))


def generated_from(initial: Ints, changed: npt.NDArray[np.bool_], end: int, padding: int, mask_id: int | None) -> int:
    """Return the first position of a row that is no part of its prompt: its first mask behind `padding`, or change.

    It is `end`, where the prompts of the batch end, at most. Before it lie masks where prompts differ in length, and
    where a loop fills in what lies within a text. `initial` and `changed` are [L].
    """
    is_masked = np.zeros(initial.size, dtype=bool) if mask_id is None else initial == mask_id
    open_ = changed | (is_masked & (np.arange(initial.size) >= padding))
    return min(end, int(open_.argmax())) if open_.any() else end


def padding_of(mask: npt.NDArray[np.int64] | None) -> int:
    """Return how many positions the attention mask [L] of a row hides at its start."""
    return 0 if mask is None or mask.all() else int(np.argmax(mask != 0))
