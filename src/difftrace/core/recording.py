"""What a baseline holds, as values: what ran, where it ran, what came out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from difftrace.core.errors import BudgetError
from difftrace.core.evidence import Evidence
from difftrace.core.logits_reference import LogitsReference
from difftrace.core.test_id import TestId as TestId
from difftrace.core.trajectory import Trajectory

JsonScalar: TypeAlias = "str | int | float | bool | None"

# What the names of loops start with that were written elsewhere.
_CAPTURED: Final = "captured "


@dataclass(frozen=True)
class ModelIdentity:
    """What ran. `weights`, `config` and `tokenizer` are "sha256:…" digests, None where unknown.

    Attributes:
        name: hub id or folder name.
        revision: commit hash of a hub model.
        weights: digest of the tensors as stored, before casting.
        config: digest of the configuration.
        tokenizer: digest of the tokenizer's files.
        vocab_size: number of token ids; decoded tokens are checked against it.
        mask_token_id: the mask, None for models without one.
    """

    name: str
    revision: str | None
    weights: str | None
    config: str | None
    tokenizer: str | None
    vocab_size: int | None
    mask_token_id: int | None


@dataclass(frozen=True)
class SamplerIdentity:
    """The denoising loop: its name, the version of its behaviour, and all its arguments.

    Of a loop written elsewhere the name says by which adapter it was captured, the version is the adapter's, and the
    arguments are those that the recording was told.
    """

    name: str
    version: int
    arguments: Mapping[str, JsonScalar]

    @classmethod
    def of_captured(cls, engine: str, version: int, arguments: Mapping[str, JsonScalar]) -> SamplerIdentity:
        """Return the identity of a loop that the adapter `engine` captured."""
        return cls(f"{_CAPTURED}{engine}", version, arguments)

    @property
    def captured(self) -> bool:
        """Whether it is a loop written elsewhere, which may have drawn random numbers that nothing saw."""
        return self.name.startswith(_CAPTURED)


@dataclass(frozen=True)
class SequenceRecord:
    """One sequence of the batch.

    Attributes:
        trajectory: its decisions.
        text: the generated text; None where there was no tokenizer.
        prompt_text: the prompt; likewise.
        evidence: why it decided so; None where that was not recorded.

    Raises:
        TrajectoryError: the evidence is not of this trajectory.
    """

    trajectory: Trajectory
    text: str | None
    prompt_text: str | None
    evidence: Evidence | None = None

    def __post_init__(self) -> None:
        if self.evidence is not None:
            self.evidence.check_fit(self.trajectory)


@dataclass(frozen=True)
class Budget:
    """How far two environments that are trusted alike are apart: no more than this is noise.

    All three are in units of logits; `difftrace.core.noise` says how each is measured between two runs.

    Attributes:
        scores: largest difference of the scores of two tokens at one position, halved.
        confidences: largest difference of a log-confidence.
        logits: largest root mean square difference of the logits of a step.
        measured: how it was measured: which runs, where, with what.

    Raises:
        BudgetError: a value is negative or no finite number.
    """

    scores: float
    confidences: float
    logits: float
    measured: Mapping[str, JsonScalar]

    def __post_init__(self) -> None:
        for name in ("scores", "confidences", "logits"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise BudgetError(f"the budget for {name} is {value!r}; it must be a finite number of at least 0")


@dataclass(frozen=True)
class ProbeStep:
    """What every module of the golden model computed on the golden canvas of one step, packed.

    `difftrace.core.probe_steps` packs and unpacks it; whoever compares decisions never needs it.

    Attributes:
        step: the step before which the canvas is, 0-based.
        sequence: which sequence ran alone; None for all of them as one batch.
        size: bytes of the document that `payload` expands to.
        digest: `sha256:` and 64 hex digits over that document.
        payload: a zstd frame of the document, which schemas/layers.schema.json describes.
    """

    step: int
    sequence: int | None
    size: int
    digest: str
    payload: bytes


@dataclass(frozen=True)
class Baseline:
    """What ran, where it ran and what came out; at least one sequence.

    Attributes:
        test: the check it belongs to.
        model: None for a loop recorded without one.
        sampler: None where it is not known.
        environment: the fingerprint; no part of what has to reproduce.
        pieces: text of the token ids that occur.
        sequences: the batch.
        budget: how far trusted environments are apart, where that was measured.
        probes: what the model's modules computed at some steps, for `difftrace bisect` to compare with; one for each
            step and sequence. No part of what has to reproduce.
        logits: the file of all logits beside the baseline, where they were recorded.
    """

    test: TestId | None
    model: ModelIdentity | None
    sampler: SamplerIdentity | None
    environment: Mapping[str, JsonScalar | list[JsonScalar]]
    pieces: Mapping[int, str]
    sequences: tuple[SequenceRecord, ...]
    budget: Budget | None = None
    probes: tuple[ProbeStep, ...] = ()
    logits: LogitsReference | None = None

    @property
    def digest(self) -> str:
        """`sha256:` and 64 hex digits over the digests of the sequences' trajectories, not over evidence or probes."""
        lines = ["difftrace-baseline-1", *(record.trajectory.digest for record in self.sequences)]
        text = "".join(f"{line}\n" for line in lines)
        return f"sha256:{hashlib.sha256(text.encode('ascii')).hexdigest()}"

    def same_decisions(self, other: Baseline) -> bool:
        """Say whether both hold the same trajectories, wherever and by whatever they were recorded."""
        return self.digest == other.digest
