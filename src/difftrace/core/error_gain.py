"""Where the error between two environments grows: how much larger it leaves a part of the model than it entered.

Between environments every result differs a little from the first rounding on, so the first difference says nothing.
What stands out is a part whose output is much further from the golden one than its inputs are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from difftrace.core.aligned_traces import Parting, Step, aligned
from difftrace.core.module_difference import Point, point
from difftrace.core.module_trace import ModuleTrace


@dataclass(frozen=True)
class ErrorGain:
    """How the relative error grew over one call of a module, or over what is computed between two.

    Attributes:
        module: dotted name of the module; for a part between modules that of the one which computes it.
        class_name: its class.
        ordinal: how many calls of this module came before.
        after: for a part between modules the point before it, else None.
        before: for a part between modules the point at its end, else None.
        error_before: largest relative error of what goes in.
        error_after: largest relative error of what comes out.
        gain: `error_after` over the larger of `error_before` and one rounding in the coarser dtype.
    """

    module: str
    class_name: str
    ordinal: int
    after: Point | None
    before: Point | None
    error_before: float
    error_after: float
    gain: float


@dataclass
class _Frame:
    """What is known inside one call so far: `errors` of tensors, by their index in the golden trace.

    The call's inputs and what was computed between modules stay in use, as a residual stream does. The result of a
    module inside counts no more once another was given it as it is: it is then `spent`.
    """

    call: int
    errors: dict[int, float]
    returned: set[int] = field(default_factory=set)
    spent: set[int] = field(default_factory=set)

    def computed(self, errors: dict[int, float]) -> dict[int, float]:
        """Return those of `errors` that belong to no tensor known so far."""
        return {index: error for index, error in errors.items() if index not in self.errors}

    def pass_on(self, errors: dict[int, float]) -> None:
        """Note what a module inside is given."""
        self.spent |= self.returned & errors.keys()
        self.errors.update(self.computed(errors))

    def take_back(self, errors: dict[int, float]) -> None:
        """Note what a module inside returned."""
        self.returned |= self.computed(errors).keys()
        self.errors.update(errors)

    def entered(self) -> float:
        """Return the largest error of what is in use."""
        return max((error for index, error in self.errors.items() if index not in self.spent), default=0.0)


def error_gains(golden: ModuleTrace, observed: ModuleTrace) -> tuple[ErrorGain, ...]:
    """Return the gain of every part of the model where it can be told, the largest first.

    Parts are the modules that call no others, and what is computed between modules (attention, activations, residual
    sums): anything that a module is given, or one with modules inside returns, and that is not the result of a
    module as it is. Ends where the two traces stop being comparable.
    """
    gains: list[ErrorGain] = []
    frames: list[_Frame] = []
    previous: Step | None = None
    for step in aligned(golden, observed):
        if isinstance(step, Parting):
            break
        errors = step.errors
        if step.moment == "input":
            if frames and previous is not None:
                gains += _between(golden, frames[-1], previous, step)
                frames[-1].pass_on(errors)
            frames.append(_Frame(step.call, dict(errors)))
        else:
            frame = frames.pop()
            if previous is not None and step.call in golden.inner:
                gains += _between(golden, frame, previous, step)
            else:
                gains += _gain(golden, frame, step, errors, None, None)
            if frames:
                frames[-1].take_back(errors)
        previous = step
    return tuple(sorted(gains, key=lambda gain: -gain.gain))


def _between(golden: ModuleTrace, frame: _Frame, previous: Step, step: Step) -> list[ErrorGain]:
    """Return the gain of what was computed in the frame's call itself between two steps, if anything was."""
    return _gain(golden, frame, step, frame.computed(step.errors), point(golden, previous), point(golden, step))


def _gain(
    golden: ModuleTrace,
    frame: _Frame,
    step: Step,
    errors: dict[int, float],
    after: Point | None,
    before: Point | None,
) -> list[ErrorGain]:
    if not errors:
        return []
    module, entered, left = golden.module_of(frame.call), frame.entered(), max(errors.values())
    # What came in with NaNs of its own cannot be judged by what comes out.
    gain = 0.0 if math.isinf(entered) else left / max(entered, step.roundoff)
    return [ErrorGain(module.name, module.kind, golden.ordinal(frame.call), after, before, entered, left, gain)]
