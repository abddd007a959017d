"""A run that is not made before something of it is asked for that nothing else can tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

from difftrace.core.evidence import Evidence
from difftrace.core.forced import ForcedVerdict
from difftrace.core.logits_reference import RecordedLogits
from difftrace.core.recording import Baseline, JsonScalar, ModelIdentity, SamplerIdentity, TestId
from difftrace.core.run import Run
from difftrace.core.trajectory import Trajectory


class DeferredRun:
    """A run with all that a `Run` has, denoised where that takes it, and then once.

    A test holds its run before it is known which baseline the run is to be held against. Where that baseline's canvases
    can be scored instead, the run itself is never needed.

    It is of the model as that is when it is denoised or verified; a model must not be changed in between.
    """

    __hash__ = None  # type: ignore[assignment]  # as of a Run, which holds mappings

    def __init__(
        self,
        declared: Run,
        denoise: Callable[[], Run],
        verify: Callable[[Baseline], ForcedVerdict],
        decided: Callable[[Sequence[Trajectory]], Run],
    ) -> None:
        """Take what makes the run.

        Args:
            declared: what is known beforehand; its trajectories hold first canvases and no decisions.
            denoise: makes the run.
            verify: scores the canvases of a baseline of this run's prompts and arguments.
            decided: returns a run, without evidence, that decided as these trajectories.
        """
        self.declared = declared
        self._denoise = denoise
        self._verify = verify
        self._decided = decided
        self._run: Run | None = None
        self._settled: Run | None = None

    @property
    def made(self) -> bool:
        """Whether it was denoised."""
        return self._run is not None

    @property
    def run(self) -> Run:
        """The run itself; denoised the first time."""
        if self._run is None:
            self._run = self._denoise()
        return self._run

    def verify(self, golden: Baseline) -> ForcedVerdict:
        """Score the canvases of `golden`; raises RunError where it does not say how it was recorded."""
        return self._verify(golden)

    def decided_as(self, golden: Baseline) -> Run:
        """Return what this run is if it decides as `golden`: its decisions, read by the tokenizer that is here."""
        return self._decided([record.trajectory for record in golden.sequences])

    def settle(self, run: Run) -> None:
        """Take decisions and texts from `run`, because it was found that this one's are the same."""
        self._settled = run

    @property
    def trajectories(self) -> tuple[Trajectory, ...]:
        """One for each sequence."""
        return self._outcome.trajectories

    @property
    def texts(self) -> tuple[str, ...] | None:
        """The generated text of each sequence; None without a tokenizer."""
        return self._outcome.texts

    @property
    def text(self) -> str:
        """The generated text of the only sequence; RunError as for a `Run`."""
        return self._outcome.text

    @property
    def pieces(self) -> Mapping[int, str]:
        """Text of the token ids that occur."""
        return self._outcome.pieces

    @property
    def prompt_texts(self) -> tuple[str, ...] | None:
        """The prompt of each sequence; None without a tokenizer."""
        return self.declared.prompt_texts

    @property
    def model(self) -> ModelIdentity | None:
        """What runs."""
        return self.declared.model

    @property
    def sampler(self) -> SamplerIdentity | None:
        """The loop."""
        return self.declared.sampler

    @property
    def environment(self) -> Mapping[str, JsonScalar | list[JsonScalar]]:
        """The fingerprint of where it runs."""
        return self.declared.environment

    @property
    def repeat(self) -> Callable[[], Run] | None:
        """Runs the same again."""
        return self.declared.repeat

    @property
    def evidences(self) -> tuple[Evidence | None, ...] | None:
        """The evidence of each sequence, which only denoising gives."""
        return self.run.evidences

    @property
    def logits(self) -> RecordedLogits | None:
        """The file that all logits went to, which only denoising gives."""
        return self.run.logits

    def to_baseline(self, test: TestId | None) -> Baseline:
        """Return the baseline that records this run for `test`, which takes its evidence."""
        return self.run.to_baseline(test)

    def __eq__(self, other: object) -> bool:
        """Compare the runs themselves."""
        if isinstance(other, DeferredRun):
            return self is other or self.run == other.run
        return self.run == other if isinstance(other, Run) else NotImplemented

    def __reduce__(self) -> tuple[Any, ...]:
        # What makes the run holds its model, which is not to be copied along.
        return copy, (self.run,)

    @property
    def _outcome(self) -> Run:
        return self.run if self._settled is None else self._settled
