"""The canvases of a run at one step, as text or token ids, and as a document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from difftrace.core.errors import ReplayError
from difftrace.core.recording import Baseline
from difftrace.core.replay import replay
from difftrace.core.trajectory import Ints, Trajectory
from difftrace.reports.canvas import MASK, mask_token

FORMAT: Final = "difftrace-replay"
VERSION: Final = "0.1"


def canvas_text(baseline: Baseline, sequence: int, canvas: Ints) -> str:
    """Return a canvas [L] as text: the pieces of its tokens without the left padding.

    Masks are blocks; a token without a piece is its number in angle brackets. It is as the tokens have it, so that it
    goes through `printable` before a terminal.
    """
    trajectory = baseline.sequences[sequence].trajectory
    mask = mask_token(baseline, trajectory)
    tokens = canvas[trajectory.padding :].tolist()
    return "".join(MASK if token == mask else baseline.pieces.get(token, f"⟨{token}⟩") for token in tokens)


def canvas_at(trajectory: Trajectory, sequence: int, step: int | None) -> tuple[int, Ints]:
    """Return the step meant and the canvas before it; None is the end of the run.

    Raises:
        ReplayError: the run is shorter.
    """
    run = replay(trajectory)
    at = trajectory.num_steps if step is None else step
    if at > trajectory.num_steps:
        raise ReplayError(
            f"sequence {sequence} has {trajectory.num_steps} steps, so the last canvas is that of"
            f" --step {trajectory.num_steps}; there is none before step {at}"
        )
    return at, run.canvas(at)


def replay_document(baseline: Baseline, path: str, sequences: Sequence[int], step: int | None) -> dict[str, Any]:
    """Return the document that schemas/replay.schema.json describes; raises ReplayError as `canvas_at` does."""
    shown = []
    for index in sequences:
        trajectory = baseline.sequences[index].trajectory
        at, canvas = canvas_at(trajectory, index, step)
        shown.append(
            {
                "index": index,
                "step": at,
                "num_steps": trajectory.num_steps,
                "tokens": canvas.tolist(),
                "text": canvas_text(baseline, index, canvas),
            }
        )
    return {"format": FORMAT, "version": VERSION, "path": path, "digest": baseline.digest, "sequences": shown}
