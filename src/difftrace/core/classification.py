"""Why two runs differ: the class of their divergence, by ordered rules over what was recorded of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from difftrace.core.budgets import Tolerance, tolerance
from difftrace.core.classes import DivergenceClass, Finding, NearTie
from difftrace.core.comparison import Divergence, compare, compare_sequences
from difftrace.core.decision_rules import decision_finding
from difftrace.core.drift_rules import drift_finding
from difftrace.core.identity_rules import identity_finding, unknown_identities
from difftrace.core.noise import Measured
from difftrace.core.outcome import Outcome, outcome_of
from difftrace.core.pairs import Pair, pairs
from difftrace.core.recording import Baseline, Budget
from difftrace.core.run_rules import NOT_REPEATED, non_finite_finding, run_to_run_finding
from difftrace.core.suspects import Suspect, suspects

# Of several sequences, each diverging by itself, the one that is reported: what no noise excuses comes first.
_EXCUSED: dict[DivergenceClass | None, int] = {None: 1, "TIE_BREAK": 2, "NEAR_TIE": 2, "DRIFT": 3}


@dataclass(frozen=True)
class Classification:
    """What a comparison of a golden and an observed run says.

    Attributes:
        divergence_class: the class; "IDENTICAL" if nothing differs that is recorded, None if something does and the
            recorded evidence cannot tell which class it is.
        reason: one sentence in plain words.
        sequence: index of the sequence; None where the whole batch is concerned.
        step: the first step that differs, where there is one.
        position: canvas position of the first decision that differs (for "INPUT": of the token), where there is one.
        kind: for "NEAR_TIE" whether a token or the order of commits was close.
        noise: the largest differences measured while the canvases were equal, for each quantity that could be
            compared; see `difftrace.core.noise`.
        decided_by: the one of them that the class rests on, or that takes up most of its budget.
        tau_source: where the budget is from: "given", "calibrated in the baseline" or "default for …"; None without
            one.
        cannot_tell: sentences saying what is not known because evidence is missing.
        outcome: what came of it in the end.
        suspects: what else differs, likeliest cause first. Hints, never the reason for a class.
        others: what was found of the other sequences that differ, in the order in which they would be reported.
    """

    divergence_class: DivergenceClass | None
    reason: str
    sequence: int | None
    step: int | None
    position: int | None
    kind: NearTie | None
    noise: tuple[Measured, ...]
    decided_by: Measured | None
    tau_source: str | None
    cannot_tell: tuple[str, ...]
    outcome: Outcome | None
    suspects: tuple[Suspect, ...]
    others: tuple[Finding, ...] = ()

    @property
    def epsilon(self) -> float | None:
        """The measured difference that decided, in units of logits; None where nothing was measured."""
        return None if self.decided_by is None else self.decided_by.epsilon

    @property
    def tau(self) -> float | None:
        """What the budget allows of it; None where nothing was measured or there is no budget."""
        return None if self.decided_by is None else self.decided_by.tau


def classify(
    golden: Baseline, observed: Baseline, *, repeated: Baseline | None = None, budget: Budget | None = None
) -> Classification:
    """Return why two runs differ, from what was recorded alone.

    The first rule that applies wins: INPUT, CONFIG, WEIGHTS (`identity_rules`; what a side does not name is not
    compared), NON_FINITE and RUN_TO_RUN (`run_rules`), then for every sequence by itself TIE_BREAK, RNG, LOGIC,
    NEAR_TIE and NUMERIC at the first step that decides otherwise (`decision_rules`), or DRIFT, NUMERIC and LENGTH if
    no common step does (`drift_rules`). Later steps say nothing: after the first one the canvases differ. Of several
    sequences the earliest divergence is reported that is neither a near tie, a tie nor drift, then the earliest that
    cannot be told, and only then one of those, so that a close decision in one row does not hide a fault in another.
    What the remaining ones are is there too, since a policy may excuse the one and not the other.

    The environments decide nothing. What differs in them is listed as suspects.

    Args:
        golden: the run to hold on to.
        observed: the run that is compared with it.
        repeated: a second run like `observed`, in the same environment, for RUN_TO_RUN.
        budget: what to hold differences against, instead of the golden's own budget or a default.
    """
    held = tolerance(golden, observed, budget)
    finding, others = _findings(golden, observed, repeated, held)
    different = finding.divergence_class != "IDENTICAL"
    return Classification(
        divergence_class=finding.divergence_class,
        reason=finding.reason,
        sequence=finding.sequence,
        step=finding.step,
        position=finding.position,
        kind=finding.kind,
        noise=finding.noise,
        decided_by=finding.decided_by,
        tau_source=None if held is None else held.source,
        cannot_tell=finding.cannot_tell,
        outcome=outcome_of(golden, observed),
        suspects=suspects(golden, observed) if different else (),
        others=others,
    )


def invalid(problem: str) -> Classification:
    """Return the class INVALID for a baseline that could not be read; `problem` is the reader's line."""
    return Classification("INVALID", problem, None, None, None, None, (), None, None, (), None, ())


def divergence_of(golden: Baseline, observed: Baseline, classification: Classification) -> Divergence | None:
    """Return the first differing decision of the sequence that `classification` is about, else of any."""
    if golden.same_decisions(observed):
        return None
    sides = [[record.trajectory for record in side.sequences] for side in (golden, observed)]
    index = classification.sequence
    if index is not None:
        own = compare(sides[0][index], sides[1][index])
        if own is not None:
            return replace(own, sequence=index)
    return compare_sequences(*sides)


def _findings(
    golden: Baseline, observed: Baseline, repeated: Baseline | None, held: Tolerance | None
) -> tuple[Finding, tuple[Finding, ...]]:
    """Return the finding to report, and those of other sequences."""
    finding = identity_finding(golden, observed)
    if finding is not None:
        return finding, ()
    sequences = pairs(golden, observed)
    cannot_tell = [*unknown_identities(golden, observed)]
    others: tuple[Finding, ...] = ()
    finding = non_finite_finding(sequences)
    if finding is None:
        repetition = NOT_REPEATED if repeated is None else run_to_run_finding(observed, repeated)
        if isinstance(repetition, Finding):
            finding = repetition
        else:
            finding, *others_found = _of_sequences(sequences, golden, observed, held)
            others = tuple(others_found)
            if repetition is not None and finding.divergence_class != "IDENTICAL":
                cannot_tell.append(repetition)
    return replace(finding, cannot_tell=(*finding.cannot_tell, *cannot_tell)), others


def _of_sequences(
    sequences: Sequence[Pair], golden: Baseline, observed: Baseline, held: Tolerance | None
) -> list[Finding]:
    """Apply the rules on decisions to every sequence and return the findings, the one to report first."""
    found = [
        drift_finding(pair, golden, held) if pair.parting is None else decision_finding(pair, golden, observed, held)
        for pair in sequences
    ]
    differing = [finding for finding in found if finding is not None]
    if differing:
        return sorted(differing, key=lambda one: (_EXCUSED.get(one.divergence_class, 0), one.step, one.sequence))
    return [Finding("IDENTICAL", "Nothing differs that is recorded.", cannot_tell=_without_evidence(sequences))]


def _without_evidence(sequences: Sequence[Pair]) -> tuple[str, ...]:
    sides = {
        "golden": any(pair.golden.evidence is None for pair in sequences),
        "observed run": any(pair.observed.evidence is None for pair in sequences),
    }
    lacking = " and the ".join(side for side, lacks in sides.items() if lacks)
    return (f"Whether the logits are the same: the {lacking} came without evidence.",) if lacking else ()
