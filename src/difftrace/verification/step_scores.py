"""How far a golden step is from what a sampler decides on the same canvas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from difftrace.core.forced import MOST
from difftrace.core.trajectory import Trajectory
from difftrace.sampling.decision import Decision

# Scores copied at once: 128 MiB in float64.
_PIECE: Final = 2**24

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GoldenEvents:
    """What the golden sequences committed at some steps, one row for each step and sequence.

    Attributes:
        rows: the row of each event, [E].
        positions: its canvas position, [E].
        tokens: its token, [E].
        count: number of rows.
    """

    rows: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    count: int


def golden_events(trajectories: Sequence[Trajectory], steps: Sequence[int]) -> GoldenEvents:
    """Return the events of `steps`, rows in the order of the steps and within one of the sequences."""
    slices = [(t, slice(*t.steps.searchsorted((step, step + 1)))) for step in steps for t in trajectories]
    return GoldenEvents(
        rows=np.repeat(np.arange(len(slices)), [events.stop - events.start for _, events in slices]),
        positions=np.concatenate([t.positions[events] for t, events in slices]).astype(np.int64),
        tokens=np.concatenate([t.tokens[events] for t, events in slices]).astype(np.int64),
        count=len(slices),
    )


def token_scores(decision: Decision, golden: GoldenEvents, temperature: float) -> Scores:
    """Return each row's token score, [rows], as `difftrace.core.forced.ScoredStep` describes it."""
    behind = np.zeros(golden.rows.size)
    most = max(1, _PIECE // decision.scores.shape[-1])
    for start in range(0, golden.rows.size, most):
        piece = slice(start, start + most)
        rows, positions, tokens = (
            torch.from_numpy(column[piece]).to(decision.scores.device)
            for column in (golden.rows, golden.positions, golden.tokens)
        )
        values = _wide(decision.scores[rows, positions])
        if decision.token_noise is not None:
            # The logarithm of what `gumbel` gives: it ranks tokens alike and is in units of logits.
            values = values.double() - temperature * torch.log(-torch.log(decision.token_noise[rows, positions]))
        gap = values.amax(-1) - values.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        behind[piece] = _bounded(gap)
    sums = np.zeros(golden.count)
    np.add.at(sums, golden.rows, behind)
    return sums


def order_scores(decision: Decision, golden: GoldenEvents) -> Scores:
    """Return each row's order score, [rows]."""
    chosen = np.zeros(decision.candidates.shape, dtype=bool)
    chosen[golden.rows, golden.positions] = True
    selected = torch.from_numpy(chosen).to(decision.candidates.device)
    confidences = _wide(decision.confidences).log().masked_fill(~decision.candidates, -torch.inf)
    best_rejected = confidences.masked_fill(selected, -torch.inf).amax(-1)
    worst_selected = confidences.masked_fill(~selected, torch.inf).amin(-1)
    return _bounded((best_rejected - worst_selected).masked_fill(best_rejected == worst_selected, 0.0))


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _bounded(differences: Tensor) -> Scores:
    bounded: Scores = differences.double().nan_to_num(MOST, MOST, 0.0).clamp(0.0, MOST).cpu().numpy()
    return bounded
