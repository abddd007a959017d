"""One run of one sequence as columns: what each step committed, how sure it was, what it passed over.

Positions count from the first that is shown, which is the first of the canvas that is no padding and no prompt; tokens
are indices into the page's table, `difftrace.reports.explorer.shared.Shared`. Columns of a side, E its events and T its
steps:

- `initial` [L]: the first canvas
- `counts` [T]: events of each step
- `positions`, `tokens` [E]: the events
- `confidences`, `margins` [E]: log-confidence; score of the best token above that of the second best
- `runners` [E]: the second best token
- `passed`, `passed_tokens`, `passed_confidences` [T]: the best rejected candidate; where there is none, its position is
  L. Often it is the next to be committed, so that in the same bytes as `positions` it takes next to no room

The last three lines are only there where evidence was recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from difftrace.core.evidence import Evidence
from difftrace.core.recording import Baseline, SequenceRecord
from difftrace.core.trajectory import Trajectory
from difftrace.reports.canvas import mask_token
from difftrace.reports.explorer.packing import Columns
from difftrace.reports.explorer.shared import Shared

Array = npt.NDArray[Any]


class Tokens:
    """The tokens of a check, by their index in the page's table."""

    def __init__(self, pieces: Mapping[int, str], shared: Shared) -> None:
        self._pieces = pieces
        self._shared = shared

    def indices(self, tokens: Array) -> Array:
        """Return the index of each of `tokens`; those that are -1, no token, become 0."""
        unique, inverse = np.unique(np.where(tokens < 0, tokens.max(initial=0), tokens), return_inverse=True)
        known = [self._shared.token(token, self._pieces.get(token)) for token in unique.tolist()]
        return np.where(tokens < 0, 0, np.array(known, dtype=np.int64)[inverse.reshape(tokens.shape)])

    def index(self, token: int | None) -> int | None:
        """Return the index of one token, None of none."""
        return None if token is None else int(self.indices(np.array([token]))[0])


def shown_from(trajectories: Iterable[Trajectory]) -> int:
    """Return the first position that is shown of the canvases of one sequence."""
    return min(map(_first, trajectories))


def side(
    baseline: Baseline, record: SequenceRecord, start: int, parting: int | None, tokens: Tokens, columns: Columns
) -> dict[str, Any]:
    """Add the columns of one run of a sequence; return what the header says of it.

    Args:
        baseline: the recording.
        record: its sequence.
        start: the first position that is shown.
        parting: the step of which exact values are wanted.
        tokens: those of the check.
        columns: the check's columns.
    """
    trajectory, evidence = record.trajectory, record.evidence
    named = [
        columns.integers("initial", tokens.indices(trajectory.initial[start:])),
        columns.integers("counts", np.bincount(trajectory.steps, minlength=trajectory.num_steps)),
        columns.integers("positions", trajectory.positions - start),
        columns.integers("tokens", tokens.indices(trajectory.tokens)),
    ]
    exact: dict[str, Any] | None = None
    if evidence is not None:
        named += _evidence(evidence, start, trajectory.length, tokens, columns)
        exact = None if parting is None or parting >= trajectory.num_steps else _exact(trajectory, evidence, parting)
    return {
        "steps": trajectory.num_steps,
        "length": trajectory.length,
        "mask": tokens.index(mask_token(baseline, trajectory)),
        "text": record.text,
        "prompt": _prompt(baseline, record),
        "evidence": evidence is not None,
        "exact": exact,
        "columns": named,
    }


def margins(evidence: Evidence) -> Array:
    """Return the score of the best token above that of the second best, float64 [E]; 0 where both are -inf."""
    with np.errstate(invalid="ignore"):
        difference: Array = evidence.top_scores.astype(np.float64) - evidence.runner_up_scores
    difference[evidence.top_scores == evidence.runner_up_scores] = 0.0
    return difference


def _evidence(evidence: Evidence, start: int, end: int, tokens: Tokens, columns: Columns) -> list[list[Any]]:
    best = evidence.rejected_positions[:, 0]
    return [
        columns.floats("confidences", evidence.confidences),
        columns.floats("margins", margins(evidence)),
        columns.integers("runners", tokens.indices(evidence.runner_up_tokens)),
        columns.integers("passed", np.where(best < start, end, best) - start),
        columns.integers("passed_tokens", tokens.indices(evidence.rejected_tokens[:, 0])),
        columns.floats("passed_confidences", evidence.rejected_confidences[:, 0]),
    ]


def _exact(trajectory: Trajectory, evidence: Evidence, step: int) -> dict[str, Any]:
    """Return the values of one step in full; None stands for those that are not finite."""
    first, last = (int(bound) for bound in trajectory.steps.searchsorted([step, step + 1]))
    return {
        "step": step,
        "from": first,
        "confidences": _finite(evidence.confidences[first:last]),
        "margins": _finite(margins(evidence)[first:last]),
        "passed": _finite(evidence.rejected_confidences[step, :1])[0],
    }


def _finite(values: Array) -> list[float | None]:
    # Seven digits are what a float32 holds.
    return [float(f"{value:.7g}") if np.isfinite(value) else None for value in values.tolist()]


def _first(trajectory: Trajectory) -> int:
    if not trajectory.prompt_in_canvas:
        return 0
    start = min(trajectory.padding + trajectory.prompt.size, trajectory.length - 1)
    return min(start, int(trajectory.positions.min(initial=start)))


def _prompt(baseline: Baseline, record: SequenceRecord) -> str | None:
    if record.prompt_text is not None:
        return record.prompt_text
    prompt = record.trajectory.prompt.tolist()
    if all(token in baseline.pieces for token in prompt):
        return "".join(baseline.pieces[token] for token in prompt)
    return " ".join(map(str, prompt))
