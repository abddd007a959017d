"""The class of what teacher-forced verification found, as far as it can be told without the logits."""

from __future__ import annotations

from typing import Final

from difftrace.core.budgets import Tolerance, tolerance
from difftrace.core.classes import DivergenceClass, Finding
from difftrace.core.classification import Classification
from difftrace.core.comparison import Divergence
from difftrace.core.forced import MOST, ForcedVerdict, ScoredStep
from difftrace.core.identity_rules import identity_finding, unknown_identities
from difftrace.core.recording import Baseline
from difftrace.core.suspects import suspects

_LOGITS: Final = "Whether the logits are the same: forced verification compares decisions alone."
_BY_FRAME: Final[dict[str, DivergenceClass]] = {"prompt": "INPUT", "initial": "INPUT", "length": "LENGTH"}


def classify_forced(golden: Baseline, observed: Baseline, verdict: ForcedVerdict) -> Classification:
    """Return why a baseline's steps, each decided again, differ.

    The rules on what went in come first, as in `difftrace.core.classification.classify`: INPUT, CONFIG, WEIGHTS. Where
    decisions alone differ, NEAR_TIE says that every step that does is so close that noise within the budget, of each
    of two values, is enough. Whether there was such noise, or another fault, only a rerun can tell: its logits are
    recorded. What is not close has no class here.

    Args:
        golden: the baseline.
        observed: the golden as it was verified: its model, its dtype. Its decisions are not looked at.
        verdict: what was found.
    """
    held = tolerance(golden, observed, None)
    finding = identity_finding(golden, observed) or _finding(verdict, held)
    first = verdict.first
    return Classification(
        divergence_class=finding.divergence_class,
        reason=finding.reason,
        sequence=None if first is None else first.sequence,
        step=None if first is None else first.step,
        position=None if first is None else first.position,
        kind=None,
        noise=(),
        decided_by=None,
        tau_source=None if held is None else held.source,
        cannot_tell=(_LOGITS, *unknown_identities(golden, observed)),
        outcome=None,
        suspects=suspects(golden, observed) if finding.divergence_class != "IDENTICAL" else (),
    )


def _finding(verdict: ForcedVerdict, held: Tolerance | None) -> Finding:
    first, divergent = verdict.first, verdict.divergent
    if first is None:
        return Finding("IDENTICAL", "Every step that was scored decides as the golden does.")
    framed = next((one for one in verdict.frame if one.kind != "length"), None if divergent else first)
    if framed is not None:
        return Finding(_BY_FRAME[framed.kind], _of_frame(framed))
    steps = len({one.step for one in divergent})
    what = f"{steps} of {len(verdict.steps)} scored steps decide{'s' if steps == 1 else ''} otherwise"
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
    values = ", ".join(f"{name} by {value:.2g}" for name, value in scores if value > 0)
    return f"at step {one.step}: {values}"
