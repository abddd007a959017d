"""One step's decision as its evidence shows it, and whether it follows from that evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from difftrace.core.evidence import Evidence, clearly_above
from difftrace.core.trajectory import Trajectory


@dataclass(frozen=True)
class Commit:
    """A committed position: the token it took, the best two tokens with their scores, and its log-confidence."""

    token: int
    top: int
    top_score: float
    runner_up: int
    runner_up_score: float
    confidence: float

    @property
    def margin(self) -> float:
        """Score of the best token above that of the second best; 0 where both are infinitely low."""
        return 0.0 if self.top_score == self.runner_up_score else self.top_score - self.runner_up_score


@dataclass(frozen=True)
class Rejected:
    """A candidate that was not committed: the token it would have taken, and its log-confidence."""

    token: int
    confidence: float


@dataclass(frozen=True)
class Decision:
    """What one run committed at one step, and what it rejected.

    Attributes:
        commits: by position.
        rejected: the best rejected candidates, by position.
        candidates: how many positions could have been committed.
        ties: how many rejected candidates have exactly the confidence of the worst committed one.
    """

    commits: Mapping[int, Commit]
    rejected: Mapping[int, Rejected]
    candidates: int
    ties: int

    @property
    def worst(self) -> float:
        """The lowest log-confidence among the committed; NaN if one is not known, +inf if there is none."""
        values = [commit.confidence for commit in self.commits.values()]
        return math.nan if any(map(math.isnan, values)) else min(values, default=math.inf)

    def bounds(self, position: int) -> tuple[float, float] | None:
        """Return the least and the greatest that the log-confidence of `position` may be, None if it was no candidate.

        Both are NaN where it is not known. A candidate beyond the listed ones is no better than the last of them, and
        as good as the worst committed one where every rejected candidate ties with that.
        """
        if position in self.commits:
            return (self.commits[position].confidence,) * 2
        if position in self.rejected:
            return (self.rejected[position].confidence,) * 2
        others = self.candidates - len(self.commits)
        if len(self.rejected) >= others:
            return None
        if self.commits and self.ties == others:
            return (self.worst, self.worst)
        listed = [one.confidence for one in self.rejected.values()]
        return (math.nan, math.nan) if any(map(math.isnan, listed)) else (-math.inf, min(listed))

    def contradiction(self) -> str | None:
        """Return how the decision contradicts its own evidence, whatever the noise, or None if it follows from it.

        A committed token must have the highest score of its position, and no rejected candidate a higher confidence
        than a committed one. What is not known contradicts nothing.
        """
        if len(self.commits) > self.candidates:
            return f"commits {len(self.commits)} positions although only {self.candidates} could have been"
        for position, commit in self.commits.items():
            if commit.token != commit.top and clearly_above(commit.top_score, commit.runner_up_score):
                return (
                    f"commits token {commit.token} at position {position} although token {commit.top} has the highest"
                    " score there"
                )
        worst = min(self.commits, key=lambda position: self.commits[position].confidence, default=None)
        for position, rejected in self.rejected.items():
            if worst is not None and clearly_above(rejected.confidence, self.worst):
                return f"commits position {worst} and not {position}, whose confidence is higher"
        return None


def decision(trajectory: Trajectory, evidence: Evidence, step: int) -> Decision:
    """Return the decision of `step`."""
    first, last = trajectory.steps.searchsorted([step, step + 1])
    positions = trajectory.positions[first:last].tolist()
    columns = (
        column[first:last].tolist()
        for column in (
            trajectory.tokens,
            evidence.top_tokens,
            evidence.top_scores,
            evidence.runner_up_tokens,
            evidence.runner_up_scores,
            evidence.confidences,
        )
    )
    listed = int(evidence.listed[step])
    rejected = (
        column[step, :listed].tolist()
        for column in (evidence.rejected_positions, evidence.rejected_tokens, evidence.rejected_confidences)
    )
    return Decision(
        commits={position: Commit(*values) for position, *values in zip(positions, *columns, strict=True)},
        rejected={position: Rejected(*values) for position, *values in zip(*rejected, strict=True)},
        candidates=int(evidence.candidates[step]),
        ties=int(evidence.ties[step]),
    )
