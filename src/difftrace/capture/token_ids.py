"""What may be a token id."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from difftrace.core.errors import CaptureError

# Baselines keep 32 bits.
_IDS: Final = 2**31


def are_token_ids(ids: npt.NDArray[np.integer[Any]]) -> bool:
    """Say whether `ids` are token ids: from 0 to 2^31 - 1."""
    return not ids.size or bool(ids.min() >= 0 and ids.max() < _IDS)


def refuse_no_ids(ids: npt.NDArray[np.integer[Any]], what: str) -> None:
    """Check that `ids`, called `what`, are token ids.

    Raises:
        CaptureError: one is not.
    """
    if not are_token_ids(ids):
        wrong = ids[(ids < 0) | (ids >= _IDS)]
        raise CaptureError(f"{what} holds {wrong.flat[0]}, which is no token id: they go from 0 to {_IDS - 1}")
