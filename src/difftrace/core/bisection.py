"""What a bisection found: whether the model repeats itself, and where it parts from the golden one."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from difftrace.core.comparison import Divergence
from difftrace.core.error_gain import ErrorGain
from difftrace.core.first_non_finite import FirstNonFinite
from difftrace.core.module_difference import ModuleFinding, StatePair
from difftrace.core.module_trace import TraceOrigin

FORMAT: Final = "difftrace-bisection"
VERSION: Final = "0.3"

# Between bf16 and fp32 the error grows by at most 2.1 over any part of the reference model, by 3.6 where random weights
# make attention sharp, and by 1 in the median; an attention scale that is off by a tenth lets it grow by 6 to 12.
STANDS_OUT: Final = 5.0

StepChoice = Literal["given", "first divergent", "none diverges", "of the golden trace"]
Decisions = Literal["not compared", "agree", "diverge"]
Source = Literal["file", "probe", "model"]
Verdict = Literal["run-to-run", "difference", "no difference", "repeatable"]


@dataclass(frozen=True)
class Against:
    """The golden side.

    Attributes:
        source: a layers file, a probe of the baseline, or another model.
        file: the layers file; None for the others.
        origin: what its trace was made from.
        finding: the first difference from it, None if there is none.
        gains: where the error grows most, the largest first.
    """

    source: Source
    file: str | None
    origin: TraceOrigin
    finding: ModuleFinding | None
    gains: tuple[ErrorGain, ...]


@dataclass(frozen=True)
class Bisection:
    """The result of running a model twice on a golden canvas, with every module watched.

    Attributes:
        origin: what was run here.
        num_steps: steps of the baseline.
        asked_step: the step in question; `origin.step`, which was run, is another where a probe is nearest to it.
        step_choice: why it is: asked for, the first step at which the model's own run leaves the
            baseline, step 0 because no step does, or the one that the golden trace is of.
        decisions: whether the model's own run was compared with the baseline, and agrees.
        divergence: where it does not.
        modules: number of modules.
        calls: number of their calls.
        changed_identity: "weights", "config": which of them, as stored, are not those the baseline was recorded with.
        unseen: names of the modules that were not called as modules.
        draws_random_numbers: whether the model used a random generator.
        repeat: the first difference between the two runs, None if there is none.
        against: the comparison with the golden side, None if there is none.
        non_finite: where NaN or infinite values begin, None if the model returns none.
    """

    origin: TraceOrigin
    num_steps: int
    asked_step: int
    step_choice: StepChoice
    decisions: Decisions
    divergence: Divergence | None
    modules: int
    calls: int
    changed_identity: tuple[str, ...]
    unseen: tuple[str, ...]
    draws_random_numbers: bool
    repeat: ModuleFinding | None
    against: Against | None
    non_finite: FirstNonFinite | None = None

    @property
    def verdict(self) -> Verdict:
        """ "run-to-run" outranks the rest; "repeatable" means that there was nothing to compare with."""
        if self.repeat is not None:
            return "run-to-run"
        if self.against is None:
            return "repeatable"
        return "no difference" if self.against.finding is None else "difference"

    @property
    def differs(self) -> bool:
        """Whether anything does: the two runs, the golden side, the decisions, the model as it is stored, or that it
        returns NaN or infinite values where the golden one did not."""
        found = self.verdict in ("run-to-run", "difference")
        broken = self.non_finite is not None and self.non_finite.in_golden is False
        return found or broken or self.decisions == "diverge" or bool(self.changed_identity)

    @property
    def same_environment(self) -> bool:
        """Whether the golden side's bits mean something here: equal dtype and equal numeric canary."""
        if self.against is None:
            return False
        here, there = self.origin.environment, self.against.origin.environment
        return all(here.get(name) is not None and here.get(name) == there.get(name) for name in ("dtype", "canary"))

    @property
    def changed_weights(self) -> tuple[StatePair, ...]:
        """Parameters and stored buffers that differ from the golden side's; no environment explains them."""
        finding = None if self.against is None else self.against.finding
        return tuple(pair for pair in (finding.changed if finding else ()) if pair.role != "non-persistent buffer")

    @property
    def largest_gain(self) -> ErrorGain | None:
        """Where the error grows most, if it stands out of what rounding does."""
        gains = () if self.against is None else self.against.gains
        return gains[0] if gains and gains[0].gain >= STANDS_OUT else None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that schemas/bisection.schema.json describes; infinities become null."""
        document: dict[str, Any] = _finite(asdict(self))
        return {
            "format": FORMAT,
            "version": VERSION,
            "verdict": self.verdict,
            "differs": self.differs,
            "same_environment": self.same_environment if self.against is not None else None,
            **document,
        }


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
