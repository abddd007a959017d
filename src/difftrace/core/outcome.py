"""What came of two runs in the end, whatever made them part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from difftrace.core.recording import Baseline
from difftrace.core.trajectory import Trajectory

OutcomeKind = Literal["IDENTICAL", "ORDER_ONLY", "TEXT"]


@dataclass(frozen=True)
class Outcome:
    """How much of the result differs.

    Attributes:
        kind: "IDENTICAL": the same events, in whichever order within a step; "ORDER_ONLY": the same final tokens by
            other commits; "TEXT": other final tokens, or another text.
        tokens: final tokens that differ; those that only one side has count too.
        commits: commits (step, position, token) that one side lacks, counted on the side that has more of them.
        same_text: whether every text is equal; None where one is not known.
    """

    kind: OutcomeKind
    tokens: int
    commits: int
    same_text: bool | None


def outcome_of(golden: Baseline, observed: Baseline) -> Outcome:
    """Return what came of two runs; sequences that only one has differ whole."""
    pairs = list(zip(golden.sequences, observed.sequences, strict=False))
    tokens = commits = 0
    for one, other in pairs:
        if one.trajectory != other.trajectory:
            tokens += _differing_tokens(one.trajectory, other.trajectory)
            commits += _differing_commits(one.trajectory, other.trajectory)
    longer = max(golden.sequences, observed.sequences, key=len)
    for record in longer[len(pairs) :]:
        tokens += record.trajectory.length
        commits += record.trajectory.num_events
    same_text = _same_text(golden, observed)
    if tokens or same_text is False:
        return Outcome("TEXT", tokens, commits, same_text)
    return Outcome("ORDER_ONLY" if commits else "IDENTICAL", tokens, commits, same_text)


def _differing_tokens(golden: Trajectory, observed: Trajectory) -> int:
    one, other = golden.final, observed.final
    shared = min(one.size, other.size)
    return int(np.count_nonzero(one[:shared] != other[:shared])) + max(one.size, other.size) - shared


def _differing_commits(golden: Trajectory, observed: Trajectory) -> int:
    one, other = (
        set(zip(t.steps.tolist(), t.positions.tolist(), t.tokens.tolist(), strict=True)) for t in (golden, observed)
    )
    return max(len(one - other), len(other - one))


def _same_text(golden: Baseline, observed: Baseline) -> bool | None:
    texts = [[record.text for record in baseline.sequences] for baseline in (golden, observed)]
    if None in texts[0] or None in texts[1]:
        return None
    return texts[0] == texts[1]
