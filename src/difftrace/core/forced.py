"""What teacher-forced verification found: every step of a golden run decided again, each by itself."""

from __future__ import annotations

from dataclasses import dataclass

from difftrace.core.comparison import Divergence
from difftrace.core.step_sample import StepSample


@dataclass(frozen=True)
class ScoredStep:
    """One step of one sequence, decided again on the golden canvas before it.

    Attributes:
        step: its number.
        sequence: index of the sequence.
        exact: whether the model scored it beside what it ran with when it was recorded and nothing else. What else is
            in a batch changes last bits.
        token_score: how far the golden tokens are from being taken: the sum over the step's golden events of the
            highest score at the position minus the golden token's, noise included, in units of logits.
        order_score: how far the golden positions are from being committed: the log-confidence of the best candidate
            that the golden rejected minus that of the worst it committed; 0 where that is negative.
        divergence: the first event that differs; None if the step decides as the golden did. The run up to the step
            is the golden one, so that all before it agrees.

    Differences count up to `MOST`, which also stands for what is forbidden or not a number. Of a step that
    diverges with both scores 0 the golden decision was as good: an exact tie was broken otherwise, or another number of
    positions committed.
    """

    step: int
    sequence: int
    exact: bool
    token_score: float
    order_score: float
    divergence: Divergence | None


# A token or position this far behind, in units of logits, has less than 1/20,000 of the best one's probability.
MOST = 10.0


@dataclass(frozen=True)
class ForcedVerdict:
    """The verdict on a baseline.

    Attributes:
        baseline: its digest.
        num_steps: steps that could be scored: those of the baseline, as far as the sampler's schedule has them.
        scored: the steps that were, by step, then sequence.
        frame: what differs beside decisions, one for each sequence at most: its prompt, its first canvas, or else its
            number of steps from the schedule's.
        left_masked: how many positions of each sequence's golden final canvas are still masked.
        batch: canvases, each with all sequences, in the largest batch that the model scored; 1 is as recorded.
        rescored: number of steps that were scored in a larger batch and then again as recorded.
        sample: which steps were scored and what that is worth; None where they were not chosen at random.
    """

    baseline: str
    num_steps: int
    scored: tuple[ScoredStep, ...]
    frame: tuple[Divergence, ...]
    left_masked: tuple[int, ...]
    batch: int
    rescored: int
    sample: StepSample | None = None

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps that were scored, ascending."""
        return tuple(dict.fromkeys(one.step for one in self.scored))

    @property
    def divergent(self) -> tuple[ScoredStep, ...]:
        """Every scored step that decides otherwise than the golden did, by step, then sequence."""
        return tuple(one for one in self.scored if one.divergence is not None)

    @property
    def first(self) -> Divergence | None:
        """The first difference, by step, then sequence; None if there is none.

        Where all steps were scored, that is the one at which a rerun leaves the baseline.
        """
        found = [one.divergence for one in self.divergent if one.divergence is not None]
        return min(
            [*self.frame, *found], key=lambda one: (-1 if one.step is None else one.step, one.sequence), default=None
        )

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return self.first is None

    @property
    def exact(self) -> bool:
        """Whether every step was scored exactly as recorded, so that bits were judged and not what they round to."""
        return all(one.exact for one in self.scored)

    @property
    def basis(self) -> str:
        """In words, what the verdict rests on."""
        chosen = f"{len(self.steps)} of {self.num_steps} steps" if self.sample is None else str(self.sample)
        if self.exact:
            return f"{chosen}; each was scored exactly as recorded"
        return (
            f"{chosen}; up to {self.batch} canvases were scored at once, which changes last bits: agreement is by"
            f" budget, not bit for bit. What differed was scored again exactly as recorded (steps so scored:"
            f" {self.rescored})"
        )
