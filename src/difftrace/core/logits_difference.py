"""How far the logits of two runs are apart at a step, exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from difftrace.core.errors import LogitsError
from difftrace.core.logits_codec import Lossy
from difftrace.core.logits_file import LogitsFile


@dataclass(frozen=True)
class LogitsDifference:
    """The largest difference of two runs' logits at one step of one sequence.

    Attributes:
        step: the step.
        sequence: the sequence.
        largest: in units of logits; infinite where one of the two is NaN or infinite and the other is not.
        number: the pass it is in: 0, or 1 for the unconditional one.
        position: where, padding left out.
        token: the token id.
        golden: the one logit.
        observed: the other.
        differing: logits that are not equal; NaN equals NaN, and +0 equals -0.
        compared: logits.
        within: by how much the files may differ from what the models returned, together.
    """

    step: int
    sequence: int
    largest: float
    number: int
    position: int
    token: int
    golden: float
    observed: float
    differing: int
    compared: int
    within: float


def logits_difference(golden: LogitsFile, observed: LogitsFile, step: int, sequence: int) -> LogitsDifference:
    """Compare `step` of `sequence`, a few MiB at a time; the files may be of different dtypes and methods.

    Raises:
        LogitsError: they are of different shapes there, or one keeps the largest logits alone.
        FormatError: a file is not what was recorded.
    """
    shapes = [_shape(file, step, sequence) for file in (golden, observed)]
    if None in shapes or shapes[0] != shapes[1]:
        raise LogitsError("the logits are not of the same shape there, so they cannot be compared")
    differing = compared = 0
    largest, where = -1.0, (0, 0, 0, 0.0, 0.0)
    pairs = zip(golden.rows[sequence].blocks(step), observed.rows[sequence].blocks(step), strict=True)
    for one, other in pairs:
        with np.errstate(invalid="ignore"):
            values, others = (
                file.layout.words.values(block.bits).astype(np.float64)
                for file, block in ((golden, one), (observed, other))
            )
            same = (values == others) | (np.isnan(values) & np.isnan(others))
            apart = np.where(same, 0.0, np.abs(values - others))
        apart[np.isnan(apart)] = np.inf
        differing += apart.size - int(np.count_nonzero(same))
        compared += apart.size
        place = int(apart.argmax())
        if float(apart.flat[place]) > largest:
            largest = float(apart.flat[place])
            row, token = divmod(place, apart.shape[1])
            where = (one.number, one.start + row, token, float(values.flat[place]), float(others.flat[place]))
    within = sum(file.method.bound for file in (golden, observed) if isinstance(file.method, Lossy))
    return LogitsDifference(step, sequence, largest, *where, differing, compared, within)


def first_difference(golden: LogitsFile, observed: LogitsFile) -> tuple[int, int] | None:
    """Return the first step at which two files' contents differ, and its first sequence; no logits are read for that.

    None where they differ nowhere, or hold what cannot be told apart by digest: another dtype, shape or method.
    """
    if (golden.layout, golden.method) != (observed.layout, observed.method):
        return None
    differ = np.flatnonzero(golden.digests != observed.digests)
    if not differ.size:
        return None
    sequences = len(golden.layout.lengths)
    step, chunk = divmod(int(differ[0]), golden.layout.chunks_before(sequences))
    ends = [golden.layout.chunks_before(number + 1) for number in range(sequences)]
    return step, next(number for number, end in enumerate(ends) if chunk < end)


def _shape(file: LogitsFile, step: int, sequence: int) -> tuple[int, int, int] | None:
    layout = file.layout
    if step >= layout.steps or sequence >= len(layout.lengths):
        return None
    return layout.passes, layout.lengths[sequence], layout.vocabulary
