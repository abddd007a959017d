"""Replaying reconstructs from events alone, and claims nothing where there is nothing to compare with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import difftrace
from difftrace.core.errors import TrajectoryError
from difftrace.core.trajectory import Trajectory

RUN = Trajectory([7], [7, 0, 0, 0], [0, 2, 2], [2, 1, 2], [5, 6, 8], 4)


def test_every_canvas_follows_from_the_events() -> None:
    canvases = [canvas.tolist() for canvas in difftrace.replay(RUN).canvases()]
    assert canvases == [[7, 0, 0, 0], [7, 0, 5, 0], [7, 0, 5, 0], [7, 6, 8, 0], [7, 6, 8, 0]]


def test_canvases_on_demand_are_those_in_turn(
    random_trajectory: Callable[..., Trajectory], rewriting_trajectory: Trajectory
) -> None:
    for trajectory in (random_trajectory(prompt=5, padding=2), rewriting_trajectory):
        found = difftrace.replay(trajectory)
        for step, canvas in enumerate(found.canvases()):
            assert np.array_equal(canvas, found.canvas(step))
        assert np.array_equal(found.final, trajectory.final)


def test_with_nothing_stored_a_replay_does_not_claim_to_match() -> None:
    found = difftrace.replay(RUN)
    assert (found.matches, found.mismatch) == (None, None)


def test_a_stored_output_is_compared_with_the_events_and_never_returned_in_their_place() -> None:
    assert difftrace.replay(RUN, stored=[7, 6, 8, 0]).matches is True
    found = difftrace.replay(RUN, stored=[7, 6, 9, 1])
    assert (found.matches, found.mismatch) == (False, 2)
    assert found.final.tolist() == [7, 6, 8, 0]


@pytest.mark.parametrize("stored", [[7, 6, 8], [[7, 6, 8, 0]], [7.0, 6.0, 8.0, 0.0], [], [[7], [6, 8]]])
def test_what_is_no_final_canvas_is_refused(stored: list[Any]) -> None:
    with pytest.raises(TrajectoryError, match="the 4 token ids of a final canvas"):
        difftrace.replay(RUN, stored=stored)


@pytest.mark.parametrize("given", [None, b"x", 5, []])
def test_what_is_no_trajectory_is_refused_at_once(given: Any) -> None:
    with pytest.raises(TypeError, match=f"takes a difftrace.Trajectory, not {type(given).__name__}; a run has"):
        difftrace.replay(given)
