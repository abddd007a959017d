"""What verifying baselines said: one value for each of them, and the document of all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

from difftrace.core.classification import Classification, divergence_of
from difftrace.core.comparison import Divergence
from difftrace.core.forced import ForcedVerdict, ScoredStep
from difftrace.core.logits_reference import RecordedLogits
from difftrace.core.policies import Judgement, Policy
from difftrace.core.recording import Baseline

FORMAT: Final = "difftrace-verification"
VERSION: Final = "0.1"

Strategy = Literal["rerun", "forced", "sampled"]
STRATEGIES: Final[tuple[Strategy, ...]] = get_args(Strategy)
Status = Literal["passed", "failed", "could not run"]


@dataclass(frozen=True)
class Asked:
    """How to verify.

    Attributes:
        strategy: "rerun": denoise again, and compare the runs; "forced": decide every step again on its golden
            canvas; "sampled": only some of them, chosen at random.
        policy: what passes; "tokens" and "text" judge the end of a run, which only "rerun" gets to.
        fail_on: classes that fail under any policy.
        allow: classes that pass under any policy.
        steps: how many steps "sampled" chooses.
        sample_seed: what it chooses them by.
        batch: canvases in one forward pass, not for "rerun"; None is as many as pay.
        profile: the determinism profile; None is the one of the model's device.
    """

    strategy: Strategy = "rerun"
    policy: Policy = "exact"
    fail_on: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    steps: int = 8
    sample_seed: int = 0
    batch: int | None = None
    profile: str | None = None


@dataclass(frozen=True)
class Verified:
    """A baseline that was run, and what came of it.

    Attributes:
        golden: the baseline.
        observed: of "rerun" the run; else the golden's decisions under the name of the model that was asked.
        classification: why they differ.
        judgement: what the policy says of it.
        forced: of "forced" and "sampled", what was found.
        logits: the file of what the run's model returned, where that was recorded.
    """

    golden: Baseline
    observed: Baseline
    classification: Classification
    judgement: Judgement
    forced: ForcedVerdict | None = None
    logits: RecordedLogits | None = None

    @property
    def divergence(self) -> Divergence | None:
        """The first decision that differs; None if none does."""
        if self.forced is not None:
            return self.forced.first
        return divergence_of(self.golden, self.observed, self.classification)

    @property
    def where(self) -> tuple[int | None, int | None, int | None]:
        """Sequence, step and position of the first difference, as far as there is one and it is known."""
        found = self.divergence or self.classification
        return found.sequence, found.step, found.position


@dataclass(frozen=True)
class Unverified:
    """A baseline that could not be run.

    Attributes:
        error: why.
        unreadable: whether it is the baseline that cannot be read.
    """

    error: str
    unreadable: bool = False


Result = Verified | Unverified


def status_of(result: Result) -> Status:
    """Return how verifying one baseline ended."""
    if isinstance(result, Unverified):
        return "could not run"
    return "passed" if result.judgement.passes else "failed"


def worst_status(statuses: Collection[Status]) -> Status:
    """Return "could not run" if one could not, else "failed" if one did."""
    order: tuple[Status, ...] = ("could not run", "failed")
    return next((status for status in order if status in statuses), "passed")


def verification_document(baselines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the document that schemas/verification.schema.json describes, of what `baseline_document` returned."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "status": worst_status([one["status"] for one in baselines]),
        "baselines": list(baselines),
    }


def baseline_document(path: str, asked: Asked, result: Result) -> dict[str, Any]:
    """Return what the document says of one baseline; `path` as it was given."""
    document: dict[str, Any] = {
        "path": path,
        "status": status_of(result),
        "strategy": asked.strategy,
        "policy": asked.policy,
        **dict.fromkeys(("class", "sequence", "step", "position", "reason", "judgement")),
        "cannot_tell": [],
        "forced": None,
        "error": None,
    }
    if isinstance(result, Unverified):
        return {**document, "class": "INVALID" if result.unreadable else None, "error": result.error}
    sequence, step, position = result.where
    found = result.classification
    return {
        **document,
        "class": found.divergence_class,
        "sequence": sequence,
        "step": step,
        "position": position,
        "reason": found.reason,
        "judgement": result.judgement.reason,
        "cannot_tell": list(found.cannot_tell),
        "forced": None if result.forced is None else _forced(result.forced),
    }


def _forced(verdict: ForcedVerdict) -> dict[str, Any]:
    sample = verdict.sample
    return {
        "basis": verdict.basis,
        "num_steps": verdict.num_steps,
        "steps": list(verdict.steps),
        "batch": verdict.batch,
        "rescored": verdict.rescored,
        "exact": verdict.exact,
        "left_masked": list(verdict.left_masked),
        "divergent": [_divergent(one) for one in verdict.divergent],
        "frame": [asdict(one) for one in verdict.frame],
        "sample": None
        if sample is None
        else {"seed": sample.seed, "caught_from": sample.caught_from, "share": sample.share, "single": sample.single},
    }


def _divergent(one: ScoredStep) -> dict[str, Any]:
    assert one.divergence is not None
    return {
        "step": one.step,
        "sequence": one.sequence,
        "position": one.divergence.position,
        "golden": one.divergence.golden,
        "observed": one.divergence.observed,
        "token_score": one.token_score,
        "order_score": one.order_score,
    }
