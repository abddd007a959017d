"""The columns of evidence: their order, shapes, types and ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from difftrace.core.errors import TrajectoryError
from difftrace.core.limits import MAX_CANVAS, MAX_TOKEN

REJECTED: Final = 4
DIGEST_LANES: Final = 2
PROJECTIONS: Final = 32

_INT32: Final = (1 << 31) - 1
_INT64: Final = (1 << 63) - 1

Number = Literal["<i4", "<i8", "<f4"]


@dataclass(frozen=True)
class Column:
    """One column; `width` numbers for each event or step, None for one without a dimension of its own.

    `least` and `most` bound the integers; the floating-point columns have no such bounds.
    """

    name: str
    per: Literal["event", "step"]
    number: Number
    width: int | None = None
    least: int = 0
    most: int = _INT32

    def shape(self, events: int, steps: int) -> tuple[int, ...]:
        """Return the shape the column has for `events` events and `steps` steps."""
        rows = events if self.per == "event" else steps
        return (rows,) if self.width is None else (rows, self.width)


LAYOUT: Final = (
    Column("top_tokens", "event", "<i4", most=MAX_TOKEN),
    Column("top_scores", "event", "<f4"),
    Column("runner_up_tokens", "event", "<i4", most=MAX_TOKEN),
    Column("runner_up_scores", "event", "<f4"),
    Column("confidences", "event", "<f4"),
    Column("candidates", "step", "<i4", most=MAX_CANVAS),
    Column("rejected_positions", "step", "<i4", REJECTED, least=-1, most=MAX_CANVAS - 1),
    Column("rejected_tokens", "step", "<i4", REJECTED, least=-1, most=MAX_TOKEN),
    Column("rejected_confidences", "step", "<f4", REJECTED),
    Column("ties", "step", "<i4", most=MAX_CANVAS),
    Column("non_finite", "step", "<i4"),
    Column("logits_digests", "step", "<i8", DIGEST_LANES, least=-_INT64 - 1, most=_INT64),
    Column("sketches", "step", "<f4", PROJECTIONS),
    Column("sketched", "step", "<i8", most=_INT64),
    Column("noise_digests", "step", "<i8", least=-_INT64 - 1, most=_INT64),
)


def numbers(events: int, steps: int) -> int:
    """Return how many numbers the columns hold for `events` events and `steps` steps."""
    return sum((events if column.per == "event" else steps) * (column.width or 1) for column in LAYOUT)


def rows(name: str, values: object) -> int:
    """Return the length of the column `name`.

    Raises:
        TrajectoryError: `values` is no array with a length.
    """
    array = _array(name, values)
    if array.ndim == 0:
        raise TrajectoryError(f"{name} is a single value, not a column")
    return len(array)


def checked(column: Column, values: object, events: int, steps: int) -> npt.NDArray[Any]:
    """Return `values` as a read-only copy in the column's type and shape.

    Every NaN becomes the same NaN and -0.0 becomes 0.0, so that equal content has equal bytes.

    Raises:
        TrajectoryError: shape, type or range is another.
    """
    array = _array(column.name, values)
    shape = column.shape(events, steps)
    if array.shape != shape and not (array.size == 0 and 0 in shape):
        raise TrajectoryError(f"{column.name} has the shape {list(array.shape)} instead of {list(shape)}")
    if array.size == 0:
        kept = np.zeros(shape, dtype=column.number)
    elif column.number == "<f4":
        kept = _floats(column, array)
    else:
        kept = _integers(column, array)
    kept.setflags(write=False)
    return kept


def _array(name: str, values: object) -> npt.NDArray[Any]:
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise TrajectoryError(f"{name} cannot be read as a column of numbers: {error}") from None


def _floats(column: Column, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype.kind != "f":
        raise TrajectoryError(f"{column.name} must hold floating-point numbers, not {array.dtype}")
    # Numbers beyond float32 become infinite, and hostile bytes may hold NaNs that signal.
    with np.errstate(over="ignore", invalid="ignore"):
        kept = array.astype(column.number)
        kept += np.float32(0.0)
    kept[np.isnan(kept)] = np.nan
    return kept


def _integers(column: Column, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype.kind not in "iu":
        raise TrajectoryError(f"{column.name} must hold integers, not {array.dtype}")
    low, high = int(array.min()), int(array.max())
    if low < column.least or high > column.most:
        wrong = low if low < column.least else high
        raise TrajectoryError(f"{column.name} holds {wrong}; it must be in {column.least}..{column.most}")
    return array.astype(column.number)
