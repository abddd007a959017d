"""A run's canvases from its events alone, and whether they lead to an output that was stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from difftrace.core.comparison import first_difference
from difftrace.core.errors import TrajectoryError
from difftrace.core.trajectory import Ints, Trajectory


@dataclass(frozen=True, eq=False)
class Replay:
    """What the events of a trajectory make of its first canvas.

    Nothing is executed: whether a model would decide so again is for a verification to say.

    Attributes:
        trajectory: the run.
        stored: final token ids that were kept beside it, shape [L]; None where none were.
    """

    trajectory: Trajectory
    stored: Ints | None

    def canvas(self, step: int) -> Ints:
        """Return the canvas before `step`, shape [L]; raises IndexError unless `step` is in [0, num_steps]."""
        return self.trajectory.canvas(step)

    def canvases(self) -> Iterator[Ints]:
        """Yield the canvas before every step and the final one: num_steps + 1 of them, each an array of its own."""
        trajectory = self.trajectory
        canvas: Ints = trajectory.initial.copy()
        bounds = trajectory.steps.searchsorted(np.arange(trajectory.num_steps + 1))
        for first, last in pairwise(bounds.tolist()):
            yield canvas.copy()
            canvas[trajectory.positions[first:last]] = trajectory.tokens[first:last]
        yield canvas

    @property
    def final(self) -> Ints:
        """The canvas after the last step, shape [L], from the events."""
        return self.trajectory.final

    @property
    def matches(self) -> bool | None:
        """Whether the events lead to what was stored; None where nothing was stored to compare with."""
        return None if self.stored is None else self.mismatch is None

    @property
    def mismatch(self) -> int | None:
        """The first canvas position at which they do not; None where there is none, or nothing to compare with."""
        return None if self.stored is None else first_difference(self.final, self.stored)


def replay(trajectory: Trajectory, *, stored: Sequence[int] | npt.NDArray[np.integer] | None = None) -> Replay:
    """Reconstruct a run from its events; `stored` is a final canvas [L] that was kept beside it, if one was.

    Raises:
        TypeError: `trajectory` is none.
        TrajectoryError: `stored` is no column of token ids as long as the canvas.
    """
    if not isinstance(trajectory, Trajectory):
        raise TypeError(
            f"replay takes a difftrace.Trajectory, not {type(trajectory).__name__}; a run has .trajectories, and"
            " Trajectory.from_bytes reads an encoded one"
        )
    if stored is None:
        return Replay(trajectory, None)
    try:
        given = np.asarray(stored)
    except ValueError as error:
        raise TrajectoryError(f"stored is not the {trajectory.length} token ids of a final canvas: {error}") from None
    if given.shape != (trajectory.length,) or not np.issubdtype(given.dtype, np.integer):
        raise TrajectoryError(
            f"stored must hold the {trajectory.length} token ids of a final canvas, not {given.dtype} {given.shape}"
        )
    return Replay(trajectory, given)
