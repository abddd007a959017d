"""Rules on the first step that decides otherwise: TIE_BREAK, RNG, LOGIC, NEAR_TIE and NUMERIC.

In this order, the first that applies:

1. another number of commits, from a sampler whose number follows from the canvas: LOGIC
2. a decision that its own run's evidence contradicts, or another number of candidates: LOGIC, whatever the noise
3. the logits are equal in every bit: TIE_BREAK where all that was chosen among is exactly equal, RNG where the random
   numbers differ, else LOGIC, as the sampler decided otherwise from the same input; not told of a loop that may have
   drawn random numbers which its evidence does not hold
4. the random numbers differ: RNG, since these alone can turn decisions
5. a confidence leaves its budget by more than the logits can have moved it: LOGIC, as the sampler makes something else
   of nearly the same input
6. what was measured up to this step exceeds the budget: NUMERIC
7. a confidence that is 0 in one run only: LOGIC, since only a rule of the sampler makes it so
8. within either run all that was chosen among is exactly equal: TIE_BREAK
9. every flip is explained by noise (`difftrace.core.flips`): NEAR_TIE, of the kind of the first decision that differs;
   if one is not: LOGIC

Digests are only asked whether they are equal, which means the same in every environment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from difftrace.core.budgets import SPREAD, Tolerance, amplification
from difftrace.core.classes import Finding, NearTie
from difftrace.core.decisions import Decision, decision
from difftrace.core.evidence import REJECTED, Evidence
from difftrace.core.flips import Flips, Need, explained, flips, order_need, tied_alike, tied_in_both, token_need
from difftrace.core.noise import Differences, Measured, differences, equal_logits, largest
from difftrace.core.pairs import Pair
from difftrace.core.recording import Baseline

# Samplers that commit as many positions at a step as canvas and arguments say, whatever the model returned.
_FIXED_NUMBER: Final = frozenset({"llada"})

# Samplers whose confidences are softmax probabilities, unless they are drawn.
_SOFTMAX: Final = frozenset({"llada"})

_MOST_NAMED: Final = 4

NO_BUDGET: Final = (
    "Whether the difference is noise: the golden has no budget, and there is no default for the dtype of both runs."
)


@dataclass(frozen=True)
class _Parting:
    """The step at which two runs part, with all that the rules look at."""

    step: int
    golden: Decision
    observed: Decision
    flips: Flips
    same_logits: bool
    same_noise: bool
    differences: Differences


def decision_finding(pair: Pair, golden: Baseline, observed: Baseline, tolerance: Tolerance | None) -> Finding:
    """Return why the decisions of a pair that parts at a step differ."""
    finding = _of_number(pair, golden, observed) or _without_evidence(pair)
    if finding is None:
        assert pair.evidences is not None
        parting = _parting(pair, *pair.evidences)
        finding = _of_sampler(parting, golden) or _of_numbers(parting, golden, tolerance)
        measured = parting.differences.measured(None if tolerance is None else tolerance.budget)
        finding = replace(finding, noise=measured, decided_by=finding.decided_by or largest(measured))
    assert pair.divergence is not None
    return replace(finding, sequence=pair.index, step=pair.divergence.step, position=pair.divergence.position)


def _parting(pair: Pair, golden: Evidence, observed: Evidence) -> _Parting:
    assert pair.parting is not None
    one = decision(pair.golden.trajectory, golden, pair.parting)
    other = decision(pair.observed.trajectory, observed, pair.parting)
    return _Parting(
        step=pair.parting,
        golden=one,
        observed=other,
        flips=flips(one, other),
        same_logits=bool(equal_logits(golden, observed, pair.shared_steps)[pair.parting]),
        same_noise=bool(golden.noise_digests[pair.parting] == observed.noise_digests[pair.parting]),
        differences=differences(
            (pair.golden.trajectory, golden), (pair.observed.trajectory, observed), pair.shared_steps
        ),
    )


def _of_number(pair: Pair, golden: Baseline, observed: Baseline) -> Finding | None:
    # Of a sampler that is not named, its schedule may be another.
    if any(side.sampler is None or side.sampler.name not in _FIXED_NUMBER for side in (golden, observed)):
        return None
    counts = [int((record.trajectory.steps == pair.parting).sum()) for record in (pair.golden, pair.observed)]
    if counts[0] == counts[1]:
        return None
    return _logic(
        f"At step {pair.parting} the golden commits {counts[0]} positions and the observed run {counts[1]}, although"
        " the number follows from the canvas, which is the same."
    )


def _without_evidence(pair: Pair) -> Finding | None:
    if pair.evidences is not None:
        return None
    sides = (("golden", pair.golden), ("observed run", pair.observed))
    lacking = [name for name, record in sides if record.evidence is None]
    return Finding(
        None,
        f"Why the runs decide differently at step {pair.parting} cannot be told without evidence.",
        cannot_tell=(f"Why the decisions were made: the {' and the '.join(lacking)} came without evidence.",),
    )


def _of_sampler(parting: _Parting, golden: Baseline) -> Finding | None:
    """Apply the rules that need no measure of the noise."""
    for name, side in (("golden", parting.golden), ("observed run", parting.observed)):
        contradiction = side.contradiction()
        if contradiction is not None:
            return _logic(f"At step {parting.step} the {name} {contradiction}.")
    counts = parting.golden.candidates, parting.observed.candidates
    if counts[0] != counts[1]:
        return _logic(
            f"At step {parting.step} the golden chose among {counts[0]} candidates and the observed run among"
            f" {counts[1]}, on the same canvas."
        )
    if parting.same_logits and tied_alike(parting.golden, parting.observed, parting.flips):
        return Finding(
            "TIE_BREAK", f"At step {parting.step} the runs chose differently among values that are exactly equal."
        )
    if not parting.same_noise:
        return Finding("RNG", f"The random numbers of step {parting.step} differ, and with them what they decide.")
    if parting.same_logits and golden.sampler is not None and golden.sampler.captured:
        reason = (
            f"At step {parting.step} the logits are equal in every bit and the decisions are not: the loop follows"
            " another rule, or drew other random numbers."
        )
        return Finding(None, reason, cannot_tell=("Which random numbers the loop drew from a generator of its own.",))
    if parting.same_logits:
        return _logic(
            f"At step {parting.step} the logits are equal in every bit and the decisions are not: the sampler follows"
            " another rule."
        )
    return None


def _of_numbers(parting: _Parting, golden: Baseline, tolerance: Tolerance | None) -> Finding:
    """Apply the rules that hold differences against the budget."""
    measured = parting.differences.measured(None if tolerance is None else tolerance.budget)
    unknown = _unmeasurable(parting, measured, tolerance)
    if unknown is not None:
        return unknown
    finding = excess_finding(parting.differences, golden, tolerance)
    if finding is not None:
        return finding
    worst = largest(measured)
    if worst is not None and worst.exceeds:
        return Finding("NUMERIC", exceeding(worst), decided_by=worst)
    if parting.differences.barred is not None:
        return _logic(
            f"A confidence at step {parting.differences.barred} is 0 in one run only, which no noise makes it."
        )
    if tied_in_both(parting.golden, parting.observed, parting.flips):
        reason = (
            f"At step {parting.step} either run chose among values that are exactly equal, and they chose differently."
        )
        return Finding("TIE_BREAK", reason)
    return _of_flips(parting, golden, measured)


def _unmeasurable(parting: _Parting, measured: tuple[Measured, ...], tolerance: Tolerance | None) -> Finding | None:
    """Return that nothing can be concluded for want of a budget, of comparable values, or of the sampler's rule."""
    lacking = []
    if tolerance is None:
        lacking.append(NO_BUDGET)
    if not measured:
        lacking.append("How far the runs are apart: their evidence has no value in common.")
    if len(parting.flips.golden) != len(parting.flips.observed):
        lacking.append(
            "Whether noise changed how many positions are committed: the rule that decides it is not recorded."
        )
    if not lacking or (tolerance is not None and any(one.exceeds for one in measured)):
        return None
    reason = f"Either noise or another rule made the decisions of step {parting.step} differ."
    return Finding(None, reason, cannot_tell=tuple(lacking))


def _of_flips(parting: _Parting, golden: Baseline, measured: tuple[Measured, ...]) -> Finding:
    factor = SPREAD * amplification(golden)
    scores, enough_scores = parting.differences.elsewhere("scores", factor)
    by_logits = golden.sampler is None or golden.sampler.arguments.get("remasking") != "random"
    confidences, enough_confidences = parting.differences.elsewhere("confidences", factor if by_logits else 0.0)
    answer = explained(parting.golden, parting.observed, parting.flips, scores, confidences)
    position = min(parting.flips.tokens + parting.flips.golden + parting.flips.observed)
    kind: NearTie = "token" if position in parting.flips.tokens else "order"
    by = {one.quantity: one for one in measured}
    decided_by = by.get("scores" if kind == "token" else "confidences", by.get("logits"))
    described = _token_flip(parting, position, scores) if kind == "token" else _order_flip(parting, confidences)
    if answer == "yes":
        return Finding("NEAR_TIE", f"At step {parting.step} {described}.", kind=kind, decided_by=decided_by)
    enough = (enough_scores or not parting.flips.tokens) and (enough_confidences or not parting.flips.golden)
    if answer == "no" and enough:
        reason = f"Noise does not explain step {parting.step}: {described}."
        return Finding("LOGIC", reason, decided_by=decided_by)
    lacking = _not_recorded(parting) if answer == "unknown" else ["How large noise is: too little else was recorded."]
    reason = f"Either noise or another rule made the decisions of step {parting.step} differ: {described}."
    return Finding(None, reason, decided_by=decided_by, cannot_tell=tuple(lacking))


def _token_flip(parting: _Parting, position: int, noise: float) -> str:
    one, other = parting.golden.commits[position], parting.observed.commits[position]
    need = token_need(one, other)
    tokens = f"token {one.token} at position {position}, the observed run token {other.token}"
    return f"the golden takes {tokens}: {_noise(need, noise)}"


def _order_flip(parting: _Parting, noise: float) -> str:
    need = order_need(parting.golden, parting.observed, parting.flips)
    positions = (", ".join(map(str, side[:_MOST_NAMED])) for side in (parting.flips.golden, parting.flips.observed))
    one, other = positions
    if math.isinf(need.least):
        return f"the golden commits position {one}, the observed run {other}, which the other could not have committed"
    return f"the golden commits position {one}, the observed run {other}: {_noise(need, noise)}"


def _noise(need: Need, noise: float) -> str:
    if math.isnan(need.least):
        return "how much noise that needs is not known"
    least = "" if need.known else "at least "
    return f"that needs noise of {least}{need.least:.2g}, and elsewhere it reaches {noise:.2g}"


def _not_recorded(parting: _Parting) -> list[str]:
    """Return what the golden would have to hold for noise to be told from another rule."""
    golden, observed = parting.golden, parting.observed
    lacking = []
    for position in parting.flips.tokens:
        token = observed.commits[position].token
        if token not in (golden.commits[position].top, golden.commits[position].runner_up):
            lacking.append(f"The golden's score of token {token} at position {position}: it is not among the best two.")
    for position in parting.flips.observed:
        bounds = golden.bounds(position)
        if bounds is not None and bounds[0] != bounds[1]:
            lacking.append(
                f"The golden's confidence at position {position}: it is not among the {REJECTED} best it rejected."
            )
    return lacking or ["Whether noise turned a token of a position that only one run commits, and its rank with it."]


def exceeding(measured: Measured) -> str:
    """Return the sentence for a difference above its budget."""
    what = {
        "scores": "margins between two tokens differ by up to twice",
        "confidences": "log-confidences differ by up to",
        "logits": "logits differ by a root mean square of up to",
    }[measured.quantity]
    return f"The {what} {measured.epsilon:.2g}, at step {measured.step}; the budget is {measured.tau:.2g}."


def excess_finding(found: Differences, golden: Baseline, tolerance: Tolerance | None) -> Finding | None:
    """Return that the sampler computes confidences otherwise, if the logits cannot have moved one so far; else None."""
    if tolerance is None or golden.sampler is None or golden.sampler.name not in _SOFTMAX:
        return None
    excess = found.excess(tolerance.budget, amplification(golden))
    if excess is None:
        return None
    by = {one.quantity: one for one in found.measured(tolerance.budget)}
    can = "which are equal in every bit" if excess.reach == 0 else f"which can move one by {excess.reach:.2g} at most"
    reason = (
        f"Log-confidences differ by up to {excess.epsilon:.2g} at step {excess.step}, where the budget is"
        f" {tolerance.budget.confidences:.2g}, and not because of the logits, {can}: the sampler computes them"
        " otherwise."
    )
    return Finding("LOGIC", reason, step=excess.step, decided_by=by["confidences"])


def _logic(reason: str) -> Finding:
    return Finding("LOGIC", reason)
