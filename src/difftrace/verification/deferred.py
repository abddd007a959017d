"""Prompts in, deferred runs out: for those who verify a run by scoring its baseline's canvases."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from operator import methodcaller
from typing import Protocol

from torch import Tensor

from difftrace.core.deferred import DeferredRun
from difftrace.core.errors import DeterminismError, LogitsError, RankError, SamplerError
from difftrace.core.forced import ForcedVerdict
from difftrace.core.logits_codec import Method
from difftrace.core.recording import Baseline
from difftrace.determinism.enforcement import enforce
from difftrace.determinism.environment import fingerprint
from difftrace.models import LoadedModel
from difftrace.sampling import SamplerArguments, undecided
from difftrace.verification.forced import verify_forced
from difftrace.verification.runner import ModelRunner, PromptRunner, run_of, threads_that_pay

# Test runners then show the caller's line, not ours, for errors that are the caller's to mend.
__tracebackhide__ = methodcaller("errisinstance", (SamplerError, LogitsError, DeterminismError, RankError))


class Verify(Protocol):
    """Scores a baseline's canvases: `verify_forced`, or `verify_sampled` for a number of steps."""

    def __call__(self, loaded: LoadedModel, golden: Baseline, *, profile: str | None) -> ForcedVerdict:
        """Return what differs."""
        ...


@dataclass(frozen=True)
class DeferredRunner(PromptRunner[DeferredRun]):
    """Prepares runs of `loaded` as a `ModelRunner` does, refusing what that refuses, and denoises them when asked.

    `verify` is how a run is held against a baseline without denoising it.
    """

    verify: Verify = verify_forced

    def start(
        self, ids: Tensor, mask: Tensor | None, arguments: SamplerArguments, logits: Method | None = None
    ) -> DeferredRun:
        """Prepare the run of a batch of ids [B, P] and their mask [B, P], None where nothing is hidden."""
        loaded, runner = self.loaded, ModelRunner(self.loaded, self.profile, across_ranks=self.across_ranks)
        seed, threads = arguments.seed, threads_that_pay(loaded.model)
        if seed is None:
            raise SamplerError("a run that is to be repeated needs a seed: give seed= an integer")
        with enforce(seed, profile=self.profile, device=loaded.device, threads=threads):
            first = undecided(loaded.model, ids, mask, arguments)
            environment = fingerprint(loaded.device, loaded.dtype)
        declared = run_of(loaded, first, arguments, environment)
        return DeferredRun(
            # What the masks read as is no text that the model gave.
            replace(declared, texts=None, repeat=partial(runner.again, ids, mask, arguments)),
            partial(runner.start, ids, mask, arguments, logits),
            partial(self.verify, loaded, profile=self.profile),
            partial(run_of, loaded, arguments=arguments, environment=environment),
        )
