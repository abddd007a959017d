"""The class of what teacher-forced verification found, as far as decisions and logits tell it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from difftrace.core.budgets import Tolerance, tolerance
from difftrace.core.classes import DivergenceClass, Finding
from difftrace.core.classification import Classification
from difftrace.core.comparison import Divergence
from difftrace.core.decision_rules import NO_BUDGET, exceeding
from difftrace.core.forced import MOST, ForcedVerdict, ScoredStep, score_text
from difftrace.core.identity_rules import identity_finding, unknown_identities
from difftrace.core.noise import Measured
from difftrace.core.recording import Baseline
from difftrace.core.suspects import suspects

_NO_EVIDENCE: Final = "Whether the logits are the same: the golden came without evidence."
_BITS: Final = "Whether the logits are equal in every bit: scored in batches not all are, but within the budget."
_CONFIDENCES: Final = (
    "Whether the sampler makes the same confidences and random numbers where it decides alike: forced verification"
    " compares decisions and logits."
)
_BY_FRAME: Final[dict[str, DivergenceClass]] = {"prompt": "INPUT", "initial": "INPUT", "length": "LENGTH"}


def classify_forced(golden: Baseline, observed: Baseline, verdict: ForcedVerdict) -> Classification:
    """Return why a baseline's steps, each decided again, differ.

    The rules on what went in come first, as in `difftrace.core.classification.classify`: INPUT, CONFIG, WEIGHTS; then
    NON_FINITE and RUN_TO_RUN, of the first step that differs, which is scored twice. NUMERIC says that logits up to the
    first decision that differs are off by more than the budget, DRIFT that only logits differ, within it. NEAR_TIE says
    that every step that decides otherwise is so close that noise within the budget, of each of two values, is enough.
    What is not close has no class here: what the sampler made of the logits is not compared. Logits count where a step
    was scored as it was recorded; what batches change is no finding.

    Args:
        golden: the baseline.
        observed: the golden as it was verified: its model, its environment. Its decisions are not looked at.
        verdict: what was found.
    """
    held = tolerance(golden, observed, None)
    finding = identity_finding(golden, observed) or _finding(verdict, held)
    first = verdict.first
    return Classification(
        divergence_class=finding.divergence_class,
        reason=finding.reason,
        sequence=finding.sequence if first is None else first.sequence,
        step=finding.step if first is None else first.step,
        position=None if first is None else first.position,
        kind=None,
        noise=finding.noise,
        decided_by=finding.decided_by,
        tau_source=None if held is None else held.source,
        cannot_tell=(*finding.cannot_tell, *_not_compared(verdict, held), *unknown_identities(golden, observed)),
        outcome=None,
        suspects=suspects(golden, observed) if finding.divergence_class != "IDENTICAL" else (),
    )


def _finding(verdict: ForcedVerdict, held: Tolerance | None) -> Finding:
    first, divergent = verdict.first, verdict.divergent
    framed = next((one for one in verdict.frame if one.kind != "length"), None if divergent else first)
    if framed is not None and framed.kind != "length":
        return Finding(_BY_FRAME[framed.kind], _of_frame(framed))
    # After the first decision that differs a run is on other canvases; what it does on the golden ones is no news.
    last = divergent[0].step if divergent else verdict.num_steps
    scored = [one for one in verdict.scored if one.step <= last and (one.exact or not divergent)]
    finding = (
        _of_computation(verdict, [one for one in verdict.beyond_noise if one.step <= last])
        or (_of_decisions(verdict, held) if divergent else None)
        or (Finding(_BY_FRAME[framed.kind], _of_frame(framed)) if framed is not None else None)
        or _of_logits(verdict)
    )
    measured = _measured(scored)
    return replace(finding, noise=measured, decided_by=finding.decided_by or next(iter(measured), None))


def _of_computation(verdict: ForcedVerdict, beyond: Sequence[ScoredStep]) -> Finding | None:
    """Return what steps whose logits differ by more than noise say, or that the model does not repeat itself."""
    for one in beyond:
        assert one.logits is not None
        if one.logits.non_finite != one.logits.golden_non_finite:
            reason = (
                f"The model returned NaN or infinite logits: {one.logits.golden_non_finite} of them at step {one.step}"
                f" in the golden, {one.logits.non_finite} here."
            )
            return Finding("NON_FINITE", reason, sequence=one.sequence, step=one.step)
    if verdict.repeats is False:
        reason = "The model does not repeat itself: scored again as recorded, the first step that differs comes out"
        at = min((*verdict.divergent, *beyond), key=lambda one: (one.step, one.sequence))
        return Finding("RUN_TO_RUN", f"{reason} otherwise, step {at.step}.", sequence=at.sequence, step=at.step)
    if not beyond:
        return None
    one = beyond[0]
    assert one.logits is not None
    if one.logits.epsilon is None:
        reason = f"At step {one.step} the logits are not the golden's, and by how much they differ cannot be told."
        return Finding(None, reason, sequence=one.sequence, step=one.step)
    if one.logits.tau is None:
        # Where decisions differ those are told of.
        reason = f"The logits differ from step {one.step} on; whether that is noise cannot be told."
        return None if verdict.divergent else Finding(None, reason, sequence=one.sequence, step=one.step)
    worst = Measured("logits", one.logits.epsilon, one.logits.tau, 1, one.step)
    return Finding("NUMERIC", exceeding(worst), sequence=one.sequence, step=one.step, decided_by=worst)


def _of_decisions(verdict: ForcedVerdict, held: Tolerance | None) -> Finding:
    divergent = verdict.divergent
    steps = len({one.step for one in divergent})
    what = f"{steps} of {len(verdict.steps)} scored steps decide{'s' if steps == 1 else ''} otherwise"
    equal = [one for one in divergent if one.logits is not None and one.logits.same]
    if equal:
        reason = f"{what}, step {equal[0].step} from logits that are equal in every bit: the sampler has changed."
        return Finding(None, reason)
    if held is not None and not verdict.frame and all(_close(one, held) for one in divergent):
        return Finding("NEAR_TIE", f"{what}, each by no more than noise within the budget can.")
    worst = max(divergent, key=lambda one: max(one.token_score, one.order_score))
    if held is None:
        why = "there is no budget to hold that against"
    elif worst.token_score == worst.order_score == 0:
        why = "among equally good ones, or as another number of them"
    else:
        why = f"not all by as little as noise can ({_worst(worst)})"
    return Finding(None, f"{what}: {why}.")


def _of_logits(verdict: ForcedVerdict) -> Finding:
    """Return what the logits say of steps that decide alike and are within the budget."""
    if verdict.drifted:
        one = verdict.drifted[0]
        reason = f"No decision differs, but the logits do from step {one.step} on, within the budget."
        return Finding("DRIFT", reason, sequence=one.sequence, step=one.step)
    return Finding("IDENTICAL", "Every step that was scored decides as the golden does.")


def _measured(scored: Sequence[ScoredStep]) -> tuple[Measured, ...]:
    """Return the largest difference of logits, nothing where none could be compared."""
    logits = [(one.step, one.logits) for one in scored if one.logits is not None]
    compared = [
        Measured("logits", held.epsilon, held.tau, 1, step) for step, held in logits if held.epsilon is not None
    ]
    if not compared:
        return ()
    return (replace(max(compared, key=lambda one: one.epsilon), count=len(compared)),)


def _not_compared(verdict: ForcedVerdict, held: Tolerance | None) -> Iterator[str]:
    if not verdict.compares_logits:
        yield _NO_EVIDENCE
    elif held is None:
        yield NO_BUDGET
    elif any(not one.exact and one.logits is not None and one.logits.same is False for one in verdict.scored):
        yield _BITS
    if verdict.compares_logits and verdict.first is None:
        yield _CONFIDENCES


def _of_frame(framed: Divergence) -> str:
    if framed.kind == "length":
        return "The golden has another number of steps than the sampler's schedule."
    what = "prompt" if framed.kind == "prompt" else "first canvas"
    return f"The sampler makes another {what} of the recorded one."


def _close(one: ScoredStep, held: Tolerance) -> bool:
    """Say whether noise within the budget is enough: each of two values that change places may move by it."""
    # Of an exact tie, or another number of commits, the scores say nothing.
    if one.token_score == one.order_score == 0 or max(one.token_score, one.order_score) >= MOST:
        return False
    return one.token_score <= 2 * held.budget.scores and one.order_score <= 2 * held.budget.confidences


def _worst(one: ScoredStep) -> str:
    scores = (("tokens", one.token_score), ("order", one.order_score))
    values = ", ".join(f"{name} by {score_text(value)}" for name, value in scores if value > 0)
    return f"at step {one.step}: {values}"
