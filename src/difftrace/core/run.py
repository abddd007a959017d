"""What one call of a model runner gave: the trajectories of its batch and everything a baseline keeps beside
them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from difftrace.core.errors import RunError
from difftrace.core.recording import (
    Baseline,
    JsonScalar,
    ModelIdentity,
    SamplerIdentity,
    SequenceRecord,
    TestId,
)
from difftrace.core.trajectory import Trajectory


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

    Raises:
        RunError: there is no sequence, or not one text for each.
    """

    trajectories: tuple[Trajectory, ...]
    texts: tuple[str, ...] | None = None
    prompt_texts: tuple[str, ...] | None = None
    model: ModelIdentity | None = None
    sampler: SamplerIdentity | None = None
    environment: Mapping[str, JsonScalar | list[JsonScalar]] = field(default_factory=dict)
    pieces: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.trajectories:
            raise RunError("a run holds at least one trajectory, this one has none")
        for name, texts in (("texts", self.texts), ("prompt_texts", self.prompt_texts)):
            if texts is not None and len(texts) != len(self.trajectories):
                raise RunError(f"{name} has {len(texts)} entries for {len(self.trajectories)} trajectories")

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
        records = zip(self.trajectories, self.texts or nothing, self.prompt_texts or nothing, strict=True)
        return Baseline(
            test=test,
            model=self.model,
            sampler=self.sampler,
            environment=self.environment,
            pieces=self.pieces,
            sequences=tuple(SequenceRecord(*record) for record in records),
        )
