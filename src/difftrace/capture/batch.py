"""A batch's rows among those that the model was given: guidance asks for each row twice."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from difftrace.capture.adapter import Forward
from difftrace.capture.tape import Call
from difftrace.core.errors import CaptureError

Tokens = npt.NDArray[np.int64]


def rows_of_batch(calls: Sequence[Call], mask_id: int | None, returned: int | None) -> int:
    """Return B, the rows of the batch: as many as were `returned`, else as the calls suggest."""
    if returned is not None:
        return returned
    least = min(int(call.ids.shape[0]) for call in calls)
    half = least // 2
    # Two equal halves may as well be a batch of equal prompts.
    alike = least % 2 or np.array_equal(calls[0].ids[:half], calls[0].ids[half:])
    if not alike and all(call.ids.shape[0] == least and _is_doubled(call, calls[0], mask_id, half) for call in calls):
        return half
    return least


def forwards_of(calls: Sequence[Call], rows: int, mask_id: int | None) -> list[Forward]:
    """Return what each call says of the batch's `rows` rows.

    A call of twice as many rows is one of guidance (ML-GSAI/LLaDA, generate.py): below the canvases come the same with
    the prompt masked.

    Raises:
        CaptureError: a call has other rows.
    """
    found = []
    for index, call in enumerate(calls):
        given = call.ids.shape[0]
        if given != rows and not (given == 2 * rows and _is_doubled(call, calls[0], mask_id, rows)):
            twice = " (and the lower half is not the upper half with the prompt masked)" if given == 2 * rows else ""
            raise CaptureError(
                f"call {index} of the model has {given} rows where the batch has {rows}{twice}: record one batch at a "
                "time, and loops that drop or add rows with rec.step(before, after)"
            )
        found.append(Forward(call.ids[:rows], call.offset, call.facts))
    return found


def apart(forwards: Sequence[Forward], mask_id: int | None) -> list[bool]:
    """Say which calls score the canvas of the call before again with the prompt masked: guidance in two calls."""
    if mask_id is None or not forwards:
        return [False] * len(forwards)
    found = [False]
    for before, call in pairwise(forwards):
        if found[-1] or call.offset != before.offset or call.ids.shape != before.ids.shape:
            found.append(False)
            continue
        changed = call.ids[call.ids != before.ids]
        # Most calls show what the one before committed: that settles it at once.
        if not changed.size or (changed != mask_id).any():
            found.append(False)
            continue
        given = _given(forwards[0].ids, forwards[0].offset, call.ids, call.offset, mask_id)
        found.append(_is_unconditional(call.ids, before.ids, given, mask_id))
    return found


def _is_doubled(call: Call, first: Call, mask_id: int | None, rows: int) -> bool:
    if mask_id is None or rows == 0 or call.ids.shape[0] != 2 * rows:
        return False
    top, bottom = call.ids[:rows], call.ids[rows:]
    return _is_unconditional(bottom, top, _given(first.ids[:rows], first.offset, top, call.offset, mask_id), mask_id)


def _is_unconditional(ids: Tokens, conditional: Tokens, given: npt.NDArray[np.bool_], mask_id: int) -> bool:
    return bool(((ids == conditional) | (given & (ids == mask_id))).all())


def _given(first: Tokens, first_offset: int, ids: Tokens, offset: int, mask_id: int) -> npt.NDArray[np.bool_]:
    """Return where the window `ids` [B, W] shows what the first call held beside masks."""
    given = np.zeros(ids.shape, dtype=bool)
    start, end = max(offset, first_offset), min(offset + ids.shape[1], first_offset + first.shape[1])
    if start < end:
        given[:, start - offset : end - offset] = first[:, start - first_offset : end - first_offset] != mask_id
    return given
