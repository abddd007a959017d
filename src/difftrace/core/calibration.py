"""A budget out of what trusted pairs of runs differ by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from difftrace.core.budgets import DEFAULTS, SPREAD, amplification
from difftrace.core.errors import CalibrationError
from difftrace.core.noise import Measured, Quantity, differences
from difftrace.core.pairs import pairs
from difftrace.core.recording import Baseline, Budget, JsonScalar

QUANTITIES: Final[tuple[Quantity, ...]] = ("scores", "confidences", "logits")
MARGIN: Final = 1.5


@dataclass(frozen=True)
class TrustedPair:
    """The golden's run beside one that should be as good.

    Attributes:
        name: what was varied.
        measured: the largest differences while the canvases were equal; empty where nothing was compared.
        steps: how many steps of all sequences had equal canvases.
        decisions: how many decisions these made.
        not_run: why it could not be run; None if it was.
    """

    name: str
    measured: tuple[Measured, ...] = ()
    steps: int = 0
    decisions: int = 0
    not_run: str | None = None


@dataclass(frozen=True)
class Calibration:
    """A measured budget, and the pairs that it was measured on."""

    budget: Budget
    pairs: tuple[TrustedPair, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "budget": {
                **{name: getattr(self.budget, name) for name in QUANTITIES},
                "measured": dict(self.budget.measured),
            },
            "pairs": [
                {
                    "name": pair.name,
                    "steps": pair.steps,
                    "decisions": pair.decisions,
                    "not_run": pair.not_run,
                    "measured": {one.quantity: one.epsilon for one in pair.measured},
                }
                for pair in self.pairs
            ],
        }


def trusted_pair(name: str, base: Baseline, varied: Baseline) -> TrustedPair:
    """Measure two runs of the same sequences, each up to the first step that decides otherwise, that one included."""
    found: dict[Quantity, Measured] = {}
    steps = decisions = 0
    for pair in pairs(base, varied):
        if pair.evidences is None:
            continue
        steps += pair.shared_steps
        decisions += int(pair.golden.trajectory.steps.searchsorted(pair.shared_steps))
        sides = zip((pair.golden.trajectory, pair.observed.trajectory), pair.evidences, strict=True)
        one, other = sides
        for measured in differences(one, other, pair.shared_steps).measured(None):
            before = found.get(measured.quantity)
            if before is None or measured.epsilon > before.epsilon:
                found[measured.quantity] = measured
    return TrustedPair(name, tuple(found.values()), steps, decisions)


def calibrated(
    trusted: Sequence[TrustedPair], baseline: Baseline, margin: float, measured_on: Mapping[str, JsonScalar]
) -> Calibration:
    """Return the budget: the largest difference of each quantity in any pair, times `margin`.

    None is below what recorded evidence resolves. Scores or confidences that no pair let be compared are allowed what
    the logits are, times what a single difference may be above the mean. `measured_on` says where it was.

    Raises:
        CalibrationError: `margin` is below 1, or no logits were compared.
    """
    if not 1.0 <= margin < float("inf"):
        raise CalibrationError(f"the margin is {margin}; it must be a finite number of at least 1")
    worst = {name: _worst(trusted, name) for name in QUANTITIES}
    if worst["logits"] is None:
        raise CalibrationError("no pair of runs could be compared, so there is nothing to take a budget from")
    floor, factor = DEFAULTS["float64"], SPREAD * amplification(baseline)
    logits = max(margin * worst["logits"][0], floor.logits)
    values = {"logits": logits}
    for name in ("scores", "confidences"):
        found = worst[name]
        values[name] = factor * logits if found is None else max(margin * found[0], getattr(floor, name))
    ran = [pair for pair in trusted if pair.not_run is None]
    measured: dict[str, JsonScalar] = {
        "basis": "calibrated",
        "margin": margin,
        "pairs": ", ".join(pair.name for pair in ran),
        "not run": "; ".join(f"{pair.name}: {pair.not_run}" for pair in trusted if pair.not_run is not None) or None,
        "steps": sum(pair.steps for pair in ran),
        "decisions": sum(pair.decisions for pair in ran),
        **{f"largest {name}": found[0] for name, found in worst.items() if found is not None},
        **{f"largest {name} in": found[1] for name, found in worst.items() if found is not None and found[0] > 0},
        **measured_on,
    }
    return Calibration(Budget(**values, measured=measured), tuple(trusted))


def with_budget(baseline: Baseline, calibration: Calibration) -> Baseline:
    """Return the baseline with this budget; its decisions, and so its digest, stay as they are."""
    return replace(baseline, budget=calibration.budget)


def _worst(trusted: Sequence[TrustedPair], quantity: Quantity) -> tuple[float, str] | None:
    """Return the largest difference of a quantity and the pair that has it, None if none was compared."""
    found = [(one.epsilon, pair.name) for pair in trusted for one in pair.measured if one.quantity == quantity]
    return max(found, key=lambda one: one[0], default=None)
