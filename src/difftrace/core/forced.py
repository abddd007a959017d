"""What teacher-forced verification found: every step of a golden run decided again, each by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from difftrace.core.comparison import Divergence
from difftrace.core.policies import divergence_classes
from difftrace.core.recording import JsonScalar
from difftrace.core.step_sample import StepSample


@dataclass(frozen=True)
class ScoredLogits:
    """What the model returned at a step's candidates, held against what was recorded of the golden's.

    Attributes:
        digest: of the logits, as in `difftrace.core.evidence`.
        non_finite: how many are NaN or infinite.
        golden_non_finite: how many of the golden's were; None where it came without evidence.
        same: whether they are the golden's in every bit; None where it came without evidence.
        epsilon: by what root mean square they differ; None where that cannot be told.
        tau: what the budget allows of it; None without one.
    """

    digest: tuple[int, ...]
    non_finite: int
    golden_non_finite: int | None
    same: bool | None
    epsilon: float | None
    tau: float | None


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
        logits: what it was decided from; None where that was not looked at.

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
    logits: ScoredLogits | None = None

    @property
    def beyond_noise(self) -> bool:
        """Whether the logits are known to differ from the golden's by more than noise is allowed.

        Where there is no budget, any difference of a step that was scored as recorded; of another nothing is known.
        """
        found = self.logits
        if found is None or found.same is not False:
            return False
        if found.epsilon is None or found.non_finite != found.golden_non_finite:
            return True
        return self.exact if found.tau is None else found.epsilon > found.tau


# A token or position this far behind, in units of logits, has less than 1/20,000 of the best one's probability.
MOST = 10.0


def score_text(score: float) -> str:
    """Return a token or order score as text: "0.012", or "at least 10" where it counts no further."""
    return f"{score:.2g}" if score < MOST else f"at least {MOST:.2g}"


# What nothing but denoising shows: DRIFT, unless each step is scored as recorded; RUN_TO_RUN of a run that would pass.
_UNSEEN_IN_BATCHES = frozenset({"DRIFT", "RUN_TO_RUN"})
_UNSEEN = frozenset({"RUN_TO_RUN"})


def unseen(classes: Iterable[str], batch: int | None) -> list[str]:
    """Return which of `classes`, which are to fail, scoring `batch` canvases at once (None: as many as pay) can miss
    where denoising does not.

    Raises:
        ValueError: a name is no class.
    """
    return sorted(divergence_classes(classes) & (_UNSEEN if batch == 1 else _UNSEEN_IN_BATCHES))


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
        repeats: whether the first step that differs, scored as recorded, came out the same a second time; None where
            none differs.
        environment: the fingerprint of where they were scored.
    """

    baseline: str
    num_steps: int
    scored: tuple[ScoredStep, ...]
    frame: tuple[Divergence, ...]
    left_masked: tuple[int, ...]
    batch: int
    rescored: int
    sample: StepSample | None = None
    repeats: bool | None = None
    environment: Mapping[str, JsonScalar | list[JsonScalar]] = field(default_factory=dict)

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps that were scored, ascending."""
        return tuple(dict.fromkeys(one.step for one in self.scored))

    @property
    def divergent(self) -> tuple[ScoredStep, ...]:
        """Every scored step that decides otherwise than the golden did, by step, then sequence."""
        return tuple(one for one in self.scored if one.divergence is not None)

    @property
    def beyond_noise(self) -> tuple[ScoredStep, ...]:
        """Every step, scored as recorded, whose logits differ from the golden's by more than noise."""
        return tuple(one for one in self.scored if one.exact and one.beyond_noise)

    @property
    def drifted(self) -> tuple[ScoredStep, ...]:
        """Every step, scored as recorded, whose logits are not the golden's in every bit."""
        return tuple(one for one in self.scored if one.exact and one.logits is not None and one.logits.same is False)

    @property
    def compares_logits(self) -> bool:
        """Whether logits were compared, and not decisions alone: the golden has evidence of them."""
        return any(one.logits is not None and one.logits.same is not None for one in self.scored)

    @property
    def first(self) -> Divergence | None:
        """The first difference of decisions, by step, then sequence; None if there is none.

        Where all steps were scored, that is the one at which a rerun leaves the baseline.
        """
        found = [one.divergence for one in self.divergent if one.divergence is not None]
        return min(
            [*self.frame, *found], key=lambda one: (-1 if one.step is None else one.step, one.sequence), default=None
        )

    @property
    def same(self) -> bool:
        """Whether nothing differs but logits by no more than noise."""
        return self.first is None and not self.beyond_noise

    @property
    def exact(self) -> bool:
        """Whether every step was scored exactly as recorded, so that bits were judged and not what they round to."""
        return all(one.exact for one in self.scored)

    @property
    def basis(self) -> str:
        """In words, what the verdict rests on."""
        chosen = f"{len(self.steps)} of {self.num_steps} steps" if self.sample is None else str(self.sample)
        if self.exact:
            alone = "" if self.compares_logits else "; decisions alone were compared"
            return f"{chosen}; each was scored exactly as recorded{alone}"
        compared = "logits are compared by budget, not bit for bit"
        if not self.compares_logits:
            compared = "decisions alone were compared"
        return (
            f"{chosen}; up to {self.batch} canvases were scored at once, which can change last bits: {compared}. What"
            f" differed was scored again exactly as recorded (steps so scored: {self.rescored})"
        )
