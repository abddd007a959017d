"""What one call of a model runner gave: the trajectories of its batch and everything a baseline keeps beside
them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from difftrace.core.audit import Audit
from difftrace.core.errors import RunError
from difftrace.core.evidence import Evidence
from difftrace.core.logits_reference import RecordedLogits
from difftrace.core.recording import (
    Baseline,
    JsonScalar,
    ModelIdentity,
    SamplerIdentity,
    SequenceRecord,
    TestId,
)
from difftrace.core.trajectory import Trajectory


@runtime_checkable
class HoldsRun(Protocol):
    """What can be asked for the run that it holds, such as a recorder that is done."""

    def as_run(self) -> Run:
        """Return the run."""
        ...


@dataclass(frozen=True)
class Run:
    """A batch of one or more sequences.

    Attributes:
        trajectories: one for each sequence.
        texts: the generated text of each sequence; None without a tokenizer.
        prompt_texts: the prompt of each sequence; None without a tokenizer.
        model: what ran, None where it is not known.
        sampler: the loop, None where it is not known.
        environment: the fingerprint of where it ran.
        pieces: text of the token ids that occur.
        evidences: the evidence of each sequence, None for one that has none; None where none was recorded.
        logits: the file that all logits went to; None where they were not recorded. It is no more compared than repeat.
        repeat: runs the same again; None where that is not possible. No part of what the run is: it is neither
            compared nor recorded, and a copy comes without it.
        audit: what the loop drew at random and selected, for people to read; neither compared nor recorded.

    Raises:
        RunError: there is no sequence, or not one text or evidence for each.
        TrajectoryError: evidence is not that of its trajectory.
    """

    trajectories: tuple[Trajectory, ...]
    texts: tuple[str, ...] | None = None
    prompt_texts: tuple[str, ...] | None = None
    model: ModelIdentity | None = None
    sampler: SamplerIdentity | None = None
    environment: Mapping[str, JsonScalar | list[JsonScalar]] = field(default_factory=dict)
    pieces: Mapping[int, str] = field(default_factory=dict)
    evidences: tuple[Evidence | None, ...] | None = None
    logits: RecordedLogits | None = field(default=None, compare=False, repr=False)
    repeat: Callable[[], Run] | None = field(default=None, compare=False, repr=False)
    audit: Audit | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.trajectories:
            raise RunError("a run holds at least one trajectory, this one has none")
        for name in ("texts", "prompt_texts", "evidences"):
            column = getattr(self, name)
            if column is not None and len(column) != len(self.trajectories):
                raise RunError(f"{name} has {len(column)} entries for {len(self.trajectories)} trajectories")
        for trajectory, evidence in zip(self.trajectories, self.evidences or (), strict=False):
            if evidence is not None:
                evidence.check_fit(trajectory)

    def __getstate__(self) -> dict[str, Any]:
        # What repeats a run holds its model, which is not to be copied along; nor is a file that may go with the run.
        return {**vars(self), "repeat": None, "logits": None}

    @property
    def text(self) -> str:
        """The generated text of the only sequence.

        Raises:
            RunError: there are several sequences, or no tokenizer made texts.
        """
        if self.texts is None:
            raise RunError("this run has no text because its model came without a tokenizer; use .trajectories")
        if len(self.texts) != 1:
            raise RunError(f"this run holds {len(self.texts)} sequences; use .texts[i]")
        return self.texts[0]

    def to_baseline(self, test: TestId | None) -> Baseline:
        """Return the baseline that records this run for `test`."""
        nothing = (None,) * len(self.trajectories)
        columns = (self.texts or nothing, self.prompt_texts or nothing, self.evidences or nothing)
        records = zip(self.trajectories, *columns, strict=True)
        return Baseline(
            test=test,
            model=self.model,
            sampler=self.sampler,
            environment=self.environment,
            pieces=self.pieces,
            sequences=tuple(SequenceRecord(*record) for record in records),
        )
