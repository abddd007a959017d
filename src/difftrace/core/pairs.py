"""The same sequence in two runs, as far as both had the same canvas."""

from __future__ import annotations

from dataclasses import dataclass

from difftrace.core.comparison import Divergence, compare
from difftrace.core.evidence import Evidence
from difftrace.core.recording import Baseline, SequenceRecord


@dataclass(frozen=True)
class Pair:
    """One sequence of two runs that went in alike.

    Attributes:
        index: of the sequence.
        golden: its record in the golden.
        observed: its record in the observed run.
        divergence: their first difference, of a decision or of the length alone.
    """

    index: int
    golden: SequenceRecord
    observed: SequenceRecord
    divergence: Divergence | None

    @property
    def parting(self) -> int | None:
        """The first step that decides otherwise; None where no common step does."""
        if self.divergence is None or self.divergence.kind != "decision":
            return None
        return self.divergence.step

    @property
    def shared_steps(self) -> int:
        """How many steps had the same canvas in both runs: those that agree, and the first that does not."""
        if self.parting is not None:
            return self.parting + 1
        return min(self.golden.trajectory.num_steps, self.observed.trajectory.num_steps)

    @property
    def evidences(self) -> tuple[Evidence, Evidence] | None:
        """The evidence of both, None unless both have some."""
        if self.golden.evidence is None or self.observed.evidence is None:
            return None
        return self.golden.evidence, self.observed.evidence


def pairs(golden: Baseline, observed: Baseline) -> list[Pair]:
    """Return the sequences of two runs side by side; both have as many."""
    return [
        Pair(index, one, other, compare(one.trajectory, other.trajectory))
        for index, (one, other) in enumerate(zip(golden.sequences, observed.sequences, strict=True))
    ]
