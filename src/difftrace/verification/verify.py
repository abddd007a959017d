"""A baseline verified outside any test: run again as it says it was recorded, and judged."""

from __future__ import annotations

from dataclasses import replace

from difftrace.core.classification import classify
from difftrace.core.forced_classes import classify_forced
from difftrace.core.logits_codec import Method
from difftrace.core.logits_reference import RecordedLogits
from difftrace.core.policies import asks_for_repetition, judge
from difftrace.core.recording import Baseline
from difftrace.core.verification import Asked, Verified
from difftrace.models import LoadedModel
from difftrace.verification.forced import verify_forced, verify_sampled
from difftrace.verification.recorded import recorded_batch, seeded
from difftrace.verification.runner import denoise


def verify(loaded: LoadedModel, golden: Baseline, asked: Asked, logits: Method | None = None) -> Verified:
    """Run `golden` again with `loaded` and its recorded arguments; return what differs, and whether that passes.

    A rerun that does not pass is repeated, to tell whether the model differs from itself; so is one that differs where
    RUN_TO_RUN is to fail. `logits` is how what the model returns is recorded, None if it is not.

    Raises:
        RunError: the baseline does not say how it was recorded, or drew random numbers that cannot be had again.
        SamplerError: the model cannot run it.
        DeterminismError: determinism cannot be enforced, or something changed one of its switches.
        ValueError: a policy or a class in `asked` is none, as `difftrace.core.policies.judge` raises it.
    """
    return _rerun(loaded, golden, asked, logits) if asked.strategy == "rerun" else _forced(loaded, golden, asked)


def _rerun(loaded: LoadedModel, golden: Baseline, asked: Asked, logits: Method | None) -> Verified:
    observed, recorded = _denoised(loaded, golden, asked, 1, logits)
    classification = classify(golden, observed)
    judgement = judge(classification, asked.policy, fail_on=asked.fail_on, allow=asked.allow)
    if asks_for_repetition(classification, judgement, asked.fail_on):
        # The second run of one seeding: a model that draws random numbers itself repeats itself under a fresh seed.
        repeated, _ = _denoised(loaded, golden, asked, 2, None)
        classification = classify(golden, observed, repeated=repeated)
        judgement = judge(classification, asked.policy, fail_on=asked.fail_on, allow=asked.allow)
    return Verified(golden, observed, classification, judgement, logits=recorded)


def _denoised(
    loaded: LoadedModel, golden: Baseline, asked: Asked, times: int, logits: Method | None
) -> tuple[Baseline, RecordedLogits | None]:
    """Return the last of so many runs in succession, and its logits."""
    batch = recorded_batch(golden)
    arguments = seeded(batch.arguments)
    runs = denoise(
        loaded, batch.prompt_ids, batch.prompt_mask, arguments, profile=asked.profile, times=times, logits=logits
    )
    # A seed that was only put in for form's sake is no argument that differs.
    return replace(runs[-1].to_baseline(golden.test), sampler=batch.arguments.identity()), runs[-1].logits


def _forced(loaded: LoadedModel, golden: Baseline, asked: Asked) -> Verified:
    if asked.strategy == "sampled":
        verdict = verify_sampled(
            loaded, golden, count=asked.steps, seed=asked.sample_seed, batch=asked.batch, profile=asked.profile
        )
    else:
        verdict = verify_forced(loaded, golden, batch=asked.batch, profile=asked.profile)
    observed = replace(golden, model=loaded.identity, environment=verdict.environment)
    classification = classify_forced(golden, observed, verdict)
    judgement = judge(classification, asked.policy, fail_on=asked.fail_on, allow=asked.allow)
    return Verified(golden, observed, classification, judgement, verdict)
