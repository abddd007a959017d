"""What `difftrace doctor` found out, as plain values, and what a caller may demand of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, Protocol

from difftrace.core.recording import JsonScalar

Probe = Literal["repeat", "batch", "padding", "threads", "attention", "dtype"]
Verdict = Literal["bit-equal", "same decisions", "differs", "not run"]

# In the order in which they run.
PROBES: Final[tuple[Probe, ...]] = ("repeat", "batch", "padding", "threads", "attention", "dtype")

# From best to worst; "not run" vouches for nothing.
VERDICTS: Final[tuple[Verdict, ...]] = ("bit-equal", "same decisions", "differs", "not run")

FORMAT: Final = "difftrace-doctor"
VERSION: Final = "0.1"

Value = str | int | bool | None


class SwitchLike(Protocol):
    """One determinism switch: what was asked for, what is in force, and how that was found."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def requested(self) -> Value:
        """What was asked for; None where it must not be set."""
        ...

    @property
    def effective(self) -> Value:
        """What was found."""
        ...

    @property
    def in_force(self) -> bool | None:
        """Whether what was asked for has taken effect; None where nothing tells."""
        ...

    @property
    def checked(self) -> str:
        """How that is known."""
        ...

    @property
    def required(self) -> bool:
        """Whether determinism is not in force without it."""
        ...


class StatusLike(Protocol):
    """The determinism that is in force, switch by switch."""

    @property
    def profile(self) -> str:
        """The profile the switches are of."""
        ...

    @property
    def active(self) -> bool:
        """Whether determinism was being enforced when the switches were read."""
        ...

    @property
    def switches(self) -> Sequence[SwitchLike]:
        """Every switch of the profile."""
        ...


@dataclass(frozen=True)
class ProbeResult:
    """What one variant of a probe showed against its base.

    Attributes:
        probe: the probe.
        variant: what was changed: "fresh process", "4 rows instead of 1".
        verdict: "bit-equal": every decision and every bit of every logit are equal. "same decisions": the same
            tokens at the same positions and steps, from logits that differ. "differs": not so. "not run": nothing
            is known.
        step: the first divergent step; only where the verdict is "differs".
        position: the first divergent position of that step, in the row's own canvas without padding.
        prompt: index of the prompt whose row diverges at that step.
        difference: the largest absolute difference of two logits over the steps that see equal canvases, the first
            divergent one included; None where nothing was run, or no pair of logits is finite.
        non_finite: pairs of logits, over the same steps, of which at least one is NaN or infinite.
        reason: why it was not run.
        unavailable: it was not run because this machine has no such thing; nothing here can run it either.
    """

    probe: Probe
    variant: str
    verdict: Verdict
    step: int | None = None
    position: int | None = None
    prompt: int | None = None
    difference: float | None = None
    non_finite: int = 0
    reason: str | None = None
    unavailable: bool = False

    def __post_init__(self) -> None:
        assert (self.verdict == "differs") == (self.step is not None) == (self.position is not None)
        assert (self.verdict == "not run") == (self.reason is not None)
        assert self.verdict == "not run" or not self.unavailable


@dataclass(frozen=True)
class Demand:
    """What somebody relies on: that no variant of `probe` is worse than `accepts`."""

    probe: Probe
    accepts: Verdict = "bit-equal"

    def failures(self, results: Sequence[ProbeResult]) -> tuple[ProbeResult, ...]:
        """Return the variants that are worse, could not be run, or compared NaN and infinities.

        What this machine does not have cannot change a run here and is left out.
        """
        allowed = VERDICTS[: VERDICTS.index(self.accepts) + 1]
        return tuple(r for r in self._concerned(results) if r.verdict not in allowed or r.non_finite)

    def met_by(self, results: Sequence[ProbeResult]) -> bool:
        """Whether at least one variant ran and none failed."""
        return bool(self._concerned(results)) and not self.failures(results)

    def _concerned(self, results: Sequence[ProbeResult]) -> list[ProbeResult]:
        return [result for result in results if result.probe == self.probe and not result.unavailable]


@dataclass(frozen=True)
class Surroundings:
    """What the probes run on and how.

    Attributes:
        model: its name.
        revision: its hub commit, None for a local folder.
        dtype: the dtype it computes in.
        device: where it computes.
        settings: what every probe runs: number and length of prompts, the sampler's arguments, threads.
        status: the determinism in force while they run.
        fingerprint: what decides the bits of a run.
    """

    model: str
    revision: str | None
    dtype: str
    device: str
    settings: Mapping[str, JsonScalar]
    status: StatusLike
    fingerprint: Mapping[str, JsonScalar | list[JsonScalar]]


@dataclass(frozen=True)
class DoctorReport:
    """Everything that was found out."""

    surroundings: Surroundings
    results: tuple[ProbeResult, ...]

    def to_json(self, demands: Sequence[Demand] = ()) -> dict[str, Any]:
        """Return the document that schemas/doctor.schema.json describes."""
        around = self.surroundings
        return {
            "format": FORMAT,
            "version": VERSION,
            "model": {
                "name": around.model,
                "revision": around.revision,
                "dtype": around.dtype,
                "device": around.device,
            },
            "settings": dict(around.settings),
            "status": _status_json(around.status),
            "fingerprint": dict(around.fingerprint),
            "probes": [asdict(result) for result in self.results],
            "demands": [
                {"probe": demand.probe, "accepts": demand.accepts, "met": demand.met_by(self.results)}
                for demand in demands
            ],
        }


def _status_json(status: StatusLike) -> dict[str, Any]:
    names = ("name", "requested", "effective", "in_force", "checked", "required")
    return {
        "profile": status.profile,
        "active": status.active,
        "switches": [{name: getattr(switch, name) for name in names} for switch in status.switches],
    }
