"""Rows of token ids found in what an engine returned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

# Where engines put the canvases of an output that is an object.
_FIELDS = ("sequences", "tokens", "output_ids", "token_ids")


def finals_of(output: Any) -> list[npt.NDArray[np.int64]] | None:
    """Return one array of token ids for each row, None where `output` holds none.

    Understood are integers [B, L] or [L] as a tensor, an array or lists (rows may differ in length), an object or
    mapping with `sequences` or `tokens`, and a tuple that starts with one of these, such as Fast-dLLM's (canvas, number
    of forwards).
    """
    if isinstance(output, Tensor):
        output = output.detach().cpu().numpy()
    if isinstance(output, np.ndarray):
        if not np.issubdtype(output.dtype, np.integer) or output.ndim not in (1, 2):
            return None
        return [row.astype(np.int64) for row in np.atleast_2d(output)]
    if isinstance(output, (list, tuple)):
        return _of_sequence(output)
    for name in _FIELDS:
        held = output.get(name) if isinstance(output, dict) else getattr(output, name, None)
        if held is not None:
            return finals_of(held)
    return None


def _of_sequence(output: Sequence[Any]) -> list[npt.NDArray[np.int64]] | None:
    if not output:
        return None
    if all(_is_id(one) for one in output):
        return [np.array(output, dtype=np.int64)]
    if isinstance(output, tuple):
        return finals_of(output[0])
    rows = [_row_of(one) for one in output]
    found = [row for row in rows if row is not None]
    return found if len(found) == len(rows) else None


def _row_of(one: Any) -> npt.NDArray[np.int64] | None:
    """Return the one row that `one` is, empty where an answer was cut to nothing; None where it is none."""
    if isinstance(one, (list, tuple)) and not one:
        return np.zeros(0, dtype=np.int64)
    rows = _of_sequence(list(one)) if isinstance(one, tuple) else finals_of(one)
    return rows[0] if rows is not None and len(rows) == 1 else None


def _is_id(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
