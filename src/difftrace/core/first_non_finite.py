"""Where in a forward pass NaN and infinite values begin."""

from __future__ import annotations

import math
from dataclasses import dataclass

from difftrace.core.module_difference import Point
from difftrace.core.module_trace import CallRecord, Event, ModuleTrace


@dataclass(frozen=True)
class FirstNonFinite:
    """The first module that makes NaN or infinite values of finite ones, in a pass whose result has some.

    Attributes:
        module: dotted name of the module, "" is the model itself.
        class_name: its class.
        ordinal: how many calls of this module came before.
        after: where `module` itself computes them from results of modules inside it, the last point at which all values
            are finite; else None, and the module was given finite values and returned others.
        before: the first point at which they are not, likewise.
        non_finite: number of values there that are NaN or infinite.
        values: number of all values there.
        in_golden: whether the golden run has such values in its logits at this step too; None where it does not say.
    """

    module: str
    class_name: str
    ordinal: int
    after: Point | None
    before: Point | None
    non_finite: int
    values: int
    in_golden: bool | None = None


def first_non_finite(trace: ModuleTrace) -> FirstNonFinite | None:
    """Return where the values begin that are not finite; None where the model returns finite values alone.

    Infinities that do no harm, as those of a mask that is added to scores, are passed over: tensors from which a module
    computes finite numbers.
    """
    if not _non_finite(trace, trace.calls[0].outputs):
        return None
    harmless = {index for call in trace.calls if _computes_finite(trace, call) for index in call.inputs}
    previous: Event | None = None
    for event in trace.events():
        broken = [index for index in event.tensors if index not in harmless]
        # What the model itself is given are token ids.
        if previous is not None and _non_finite(trace, broken):
            return _found(trace, previous, event)
        previous = event
    return None


def _found(trace: ModuleTrace, previous: Event, event: Event) -> FirstNonFinite:
    call = event.call
    after = before = None
    if event.moment == "input" or event.call in trace.inner:
        after, before = (Point(trace.module_of(one.call).name, one.moment) for one in (previous, event))
        parent = trace.calls[event.call].parent
        if event.moment == "input" and parent is not None:
            call = parent
    module = trace.module_of(call)
    return FirstNonFinite(
        module=module.name,
        class_name=module.kind,
        ordinal=trace.ordinal(call),
        after=after,
        before=before,
        non_finite=_non_finite(trace, event.tensors),
        values=sum(math.prod(trace.tensors[index].shape) for index in event.tensors),
    )


def _non_finite(trace: ModuleTrace, tensors: tuple[int, ...] | list[int]) -> int:
    return sum(trace.tensors[index].non_finite for index in tensors)


def _computes_finite(trace: ModuleTrace, call: CallRecord) -> bool:
    """Say whether a call returned numbers of floating point, all of them finite."""
    # Only those have a norm. Indices, say of experts, are finite whatever they were chosen by.
    numbers = any(trace.tensors[index].norm is not None for index in call.outputs)
    return numbers and not _non_finite(trace, call.outputs)
