"""`--difftrace-strategy`: whether the llada fixture's runs are denoised, and what is said of it.

Loaded into every pytest run, so the library is imported where it is needed.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pytest_difftrace import ranks
from pytest_difftrace.options import Settings
from pytest_difftrace.step_sampling import Sampling

if TYPE_CHECKING:
    from difftrace.core.forced import ForcedVerdict
    from difftrace.core.recording import Baseline
    from difftrace.models import LoadedModel
    from difftrace.verification import DeferredRunner, ModelRunner


def runner(loaded: LoadedModel, settings: Settings, attempt: int = 1) -> ModelRunner | DeferredRunner:
    """Return what the llada fixture gives: in a session that scores canvases, one whose runs are deferred.

    In the second `attempt` of a recording each run is a second one of its seeding, for what a test runs anew is seeded
    anew, so that a model that draws random numbers would repeat itself.
    """
    from difftrace.verification import DeferredRunner, ModelRunner

    if settings.mode != "verify" or settings.strategy == "rerun" or _obstacle(settings) is not None:
        return ModelRunner(loaded, settings.profile, across_ranks=True, times=attempt)
    if settings.strategy == "forced":
        return DeferredRunner(loaded, settings.profile, across_ranks=True)
    return DeferredRunner(loaded, settings.profile, partial(_sampled, settings.sampling), across_ranks=True)


def header(settings: Settings) -> str:
    """Return ", strategy forced" for the header's line, with why runs are denoised all the same; "" for rerun."""
    if settings.mode != "verify" or settings.strategy == "rerun":
        return ""
    obstacle = _obstacle(settings)
    if obstacle is not None:
        return f", strategy {settings.strategy} (rerun here: {obstacle})"
    return f", strategy {settings.strategy}" + (f" ({settings.sampling})" if settings.strategy == "sampled" else "")


def basis(verdict: ForcedVerdict) -> str:
    """Return what the verification rests on, as the end of the line "3 verified by scoring golden canvases…"."""
    if not verdict.compares_logits:
        compared = "decisions alone, as the baseline came without evidence"
    else:
        compared = "decisions and logits" if verdict.exact else "decisions, and logits by budget"
    how = "each step as it was recorded" if verdict.exact else "in batches; what differs there again as recorded"
    how = f"{compared}; {how}"
    return f" ({how})" if verdict.sample is None else f", {verdict.sample} ({how})"


def _sampled(sampling: Sampling, loaded: LoadedModel, golden: Baseline, *, profile: str | None) -> ForcedVerdict:
    from difftrace.verification.forced import verify_sampled

    # A model that is spread over ranks has to see the same canvases on all of them.
    seed = ranks.of_first(sampling.seed)
    return verify_sampled(loaded, golden, count=sampling.steps, seed=seed, profile=profile)


def _obstacle(settings: Settings) -> str | None:
    """Return why scored canvases cannot tell what this session asks; None where they can."""
    if settings.policy in ("tokens", "text"):
        return f"policy {settings.policy} judges where a whole run ends"
    if not settings.fail_on:
        return None
    from difftrace.core.forced import unseen

    asked = unseen(settings.fail_on, None)
    return f"{', '.join(asked)} may not show in scored canvases" if asked else None
