"""What became of one check, as a report tells it: plain values that hold no decisions but the first that differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

Status = Literal[
    "verified",
    "allowed",
    "unchanged",
    "new",
    "changed",
    "skipped",
    "diverged",
    "without baseline",
    "unreadable",
    "refused",
    "not reproducible",
    "not recorded (test failed)",
    "not recorded (test skipped)",
    "not recorded (cannot be repeated)",
    "not recorded (not finite)",
    "not recorded (could not be written)",
    "error",
]
STATUSES: Final[tuple[Status, ...]] = get_args(Status)

GOOD: Final[tuple[Status, ...]] = ("unchanged", "new", "changed", "verified", "allowed")
"""What leaves a test as it was; the others make it fail or say that nothing was checked or recorded."""


@dataclass(frozen=True)
class FirstDivergence:
    """The first decision that differs: `difftrace.core.comparison.Divergence`, with the texts of the two tokens."""

    kind: str
    sequence: int
    step: int | None
    position: int | None
    golden: int | None
    observed: int | None
    golden_piece: str | None
    observed_piece: str | None
    agreed_steps: int
    agreed_events: int


@dataclass(frozen=True)
class ReportedOutcome:
    """What came of the two runs in the end: `difftrace.core.outcome.Outcome`."""

    kind: str
    tokens: int
    commits: int
    same_text: bool | None


@dataclass(frozen=True)
class ReportedMeasure:
    """The largest difference of one quantity: `difftrace.core.noise.Measured`."""

    quantity: str
    epsilon: float
    tau: float | None
    count: int
    step: int


@dataclass(frozen=True)
class ReportedSuspect:
    """A field that differs between the two runs; a side that lacks it has None."""

    field: str
    golden: Any
    observed: Any


@dataclass(frozen=True)
class BaselineFile:
    """The baseline that a check was compared with.

    Attributes:
        path: seen from the root folder, with forward slashes.
        shared: whether it is the file for all platforms, else the one of this platform.
        digest: digest of its decisions; None where it could not be read.
        sha256: digest of the file's bytes as they were compared; None where there was no file.
    """

    path: str
    shared: bool
    digest: str | None
    sha256: str | None


@dataclass(frozen=True)
class ReceivedFile:
    """The run of a failed check, written as the baseline it would be recorded as.

    Attributes:
        path: seen from the results folder, with forward slashes.
        digest: digest of its decisions.
        sha256: digest of the file's bytes.
    """

    path: str
    digest: str
    sha256: str


@dataclass(frozen=True)
class Checked:
    """One check and what became of it.

    What is said of two runs is of the baseline's and the observed one; of a check that is not reproducible it is of the
    two runs of its recording, of which the first counts as golden.

    Attributes:
        nodeid: the test as pytest names it; a command line that is given it runs the test.
        module: file of the test, seen from the root folder, with forward slashes.
        id: "Class::test[param]".
        name: the check's name where its test has several, else None.
        file: where the check is called, likewise seen from the root folder.
        line: line of that, from 1.
        run: index in the report's `runs`.
        status: what became of it.
        divergence_class: the class; None where nothing was compared, or what differs cannot be told.
        reason: why it is that class.
        judgement: why that passes or does not.
        cannot_tell: what is not known.
        outcome: what came of the two runs in the end.
        first_divergence: the first decision that differs.
        measured: how far the two are apart, where that could be measured.
        budget: where the budget comes from that this was held against.
        suspects: what else differs, likeliest cause first.
        policy: what decided whether it passes.
        strategy: how its run was made: "rerun" if it was denoised, "forced" or "sampled" if canvases were scored.
        environment: index in the report's `environments` of where it ran; None where it does not say.
        seconds: how long the check took, the model's runs left out.
        baseline: the file compared with; None where none was looked for.
        target: the file that a recording writes, seen from the root folder; None likewise.
        received: the run, where the check failed and the results folder has it.
        text: the failure's text; None where nothing failed.
    """

    nodeid: str
    module: str
    id: str
    name: str | None
    file: str
    line: int
    run: int
    status: Status
    divergence_class: str | None
    reason: str | None
    judgement: str | None
    cannot_tell: tuple[str, ...]
    outcome: ReportedOutcome | None
    first_divergence: FirstDivergence | None
    measured: tuple[ReportedMeasure, ...]
    budget: str | None
    suspects: tuple[ReportedSuspect, ...]
    policy: str
    strategy: str
    environment: int | None
    seconds: float
    baseline: BaselineFile | None
    target: str | None
    received: ReceivedFile | None
    text: str | None

    @property
    def good(self) -> bool:
        """Whether it passed."""
        return self.status in GOOD

    @property
    def title(self) -> str:
        """The test's node id, and the check's name where it has one."""
        return self.nodeid if self.name is None else f"{self.nodeid}, check {self.name}"
