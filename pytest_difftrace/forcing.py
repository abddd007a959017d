"""Checks of deferred runs: golden canvases are scored, and the run is denoised only where that does not settle it."""

from __future__ import annotations

from dataclasses import replace

from difftrace.core.comparison import Divergence, compare_sequences
from difftrace.core.deferred import DeferredRun
from difftrace.core.errors import RunError
from difftrace.core.forced import ForcedVerdict
from difftrace.core.forced_classes import classify_forced
from difftrace.core.identity_rules import identity_finding
from difftrace.core.recording import Baseline
from pytest_difftrace import ranks
from pytest_difftrace.checks import Check, Observation, compared, find, judged_as, made, verdict_on
from pytest_difftrace.options import Settings
from pytest_difftrace.stopwatch import Stopwatch

__tracebackhide__ = True


def judge_deferred(run: DeferredRun, observation: Observation, settings: Settings, watch: Stopwatch) -> Check:
    """Compare `run`, of which `observation` has what is declared, with its baseline; the model's time is no check's.

    Its canvases are scored if the run was not denoised so far and is declared to be the golden one over again. What
    they do not settle is denoised and compared as any other run.
    """
    check = find(observation, settings)
    if check.verdict != "diverged":
        return check
    assert check.golden is not None
    with watch.paused():
        verdict = None if run.made else _scored(run, observation.run, check.golden)
    same = verdict is not None and verdict.same
    # Ranks denoise together: they compare what they decide, and their model may run on all of them only.
    if not ranks.on_any(not same):
        ranks.agree([record.trajectory for record in check.golden.sequences], observation.test)
        return _passed(check, verdict, settings)
    with watch.paused():
        denoised = run.run
    check = compared(replace(check, observation=made(observation, denoised, settings.platform_key)), settings)
    return check if verdict is None or same else _with_verdict(check, verdict, settings)


def _passed(check: Check, verdict: ForcedVerdict | None, settings: Settings) -> Check:
    """Return `check` passed by `verdict`, with its class where only logits differ, within the budget."""
    assert verdict is not None
    assert check.golden is not None
    passed = replace(check, verdict="passed", forced=verdict)
    if not verdict.drifted:
        return passed
    found = classify_forced(check.golden, check.observation.run, verdict)
    return replace(passed, classification=found, judgement=verdict_on(found, settings))


def _scored(run: DeferredRun, declared: Baseline, golden: Baseline) -> ForcedVerdict | None:
    """Return what scoring the canvases of `golden` finds; None where the run has to be denoised to say more."""
    if identity_finding(golden, declared) is not None:
        return None
    try:
        verdict = run.verify(golden)
    except RunError:  # it does not say how it was recorded, or cannot be scored step by step
        return None
    if not verdict.same:
        return verdict
    followed = run.decided_as(golden)
    recorded = [record.text for record in golden.sequences]
    if any(one not in (None, other) for one, other in zip(recorded, followed.texts or recorded, strict=True)):
        return None
    if verdict.sample is None:
        run.settle(followed)
    return verdict


def _with_verdict(check: Check, verdict: ForcedVerdict, settings: Settings) -> Check:
    """Return `check` of the denoised run with `verdict`, which found a divergence that the run has to show as well.

    The step at which scored canvases first diverge was scored as recorded, so a run that repeats itself leaves the
    golden there; where only some steps were scored, there at the latest.
    """
    check = replace(check, forced=verdict)
    assert check.golden is not None
    assert check.classification is not None
    first = verdict.first
    if first is None:
        return _with_logits(check, verdict, settings)
    sides = (check.golden, check.observation.run)
    parted = compare_sequences(*([record.trajectory for record in side.sequences] for side in sides))
    if parted is not None and (_place(parted) == _place(first) or (verdict.sample and _place(parted) < _place(first))):
        return check
    at = "nowhere" if parted is None else f"at step {parted.step}"
    reason = (
        "The run does not repeat itself: scored on the golden canvases it leaves the golden at step"
        f" {first.step}, denoised {at}."
    )
    return _run_to_run(check, reason, (first.sequence, first.step, first.position), settings)


def _with_logits(check: Check, verdict: ForcedVerdict, settings: Settings) -> Check:
    """Return `check` of the denoised run with `verdict`, by which logits alone differ, which the run has to show."""
    assert check.classification is not None
    if check.classification.divergence_class != "IDENTICAL":
        return check
    one = verdict.beyond_noise[0]
    reason = (
        "The run does not repeat itself: scored on the golden canvases its logits leave the golden's at step"
        f" {one.step}, denoised nowhere."
    )
    return _run_to_run(check, reason, (one.sequence, one.step, None), settings)


def _run_to_run(check: Check, reason: str, at: tuple[int, int | None, int | None], settings: Settings) -> Check:
    assert check.classification is not None
    sequence, step, position = at
    found = replace(
        check.classification,
        divergence_class="RUN_TO_RUN",
        reason=reason,
        sequence=sequence,
        step=step,
        position=position,
        kind=None,
        noise=(),
        decided_by=None,
    )
    return judged_as(check, found, settings)


def _place(divergence: Divergence) -> tuple[int, int]:
    return -1 if divergence.step is None else divergence.step, divergence.sequence
