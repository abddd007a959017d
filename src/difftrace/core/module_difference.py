"""Two traces of one canvas compared: the first module at which they part, and what of its state differs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from difftrace.core.aligned_traces import Parting, Step, aligned, outputs
from difftrace.core.module_trace import ModuleRecord, ModuleTrace, Moment, Role, StateRecord

Kind = Literal["input", "structure", "parameters", "module", "between modules"]


@dataclass(frozen=True)
class Point:
    """What a module is given ("input") or returns ("output")."""

    module: str
    moment: Moment


@dataclass(frozen=True)
class StatePair:
    """A parameter or buffer of either model, by its dotted name.

    Digests are those in the dtype that each side has it in, None where it does not exist or has no content here.
    `equal` is None where the two cannot be compared.
    """

    name: str
    role: Role
    golden: str | None
    observed: str | None
    equal: bool | None


@dataclass(frozen=True)
class ModuleFinding:
    """The first difference between a golden trace and an observed one.

    Attributes:
        kind: "input": the model itself was given something else. "structure": other modules were called, or with
            other shapes. "parameters": as "module" or "between modules", and parameters or buffers used there differ;
            also where they differ without any effect on this canvas. "module": a module was given the same and
            returned something else. "between modules": everything before agrees, but what the next module was given,
            or what a module with others inside returned, does not; so `module` itself computes something else there.
        module: dotted name of the module, "" is the model itself.
        class_name: its class.
        ordinal: how many calls of this module came before.
        after: the last point that agrees, if the difference is in what is computed between modules, else None.
        before: the first that does not, likewise.
        detail: for "structure" what differs, else None.
        state: parameters and buffers of `module`, and of modules inside it that are never called.
        changed: all parameters and buffers of the model that differ, in the order in which modules are called.
        error_before: largest relative distance among what went in; None if it cannot be told.
        error_after: among what came out.
        error_at_output: among what the model returned.
        non_finite: number of NaN and infinite values in what came out, golden and observed.
    """

    kind: Kind
    module: str
    class_name: str
    ordinal: int
    after: Point | None
    before: Point | None
    detail: str | None
    state: tuple[StatePair, ...]
    changed: tuple[StatePair, ...]
    error_before: float | None
    error_after: float | None
    error_at_output: float | None
    non_finite: tuple[int, int]

    @property
    def without_effect(self) -> bool:
        """Whether parameters differ, but nothing that any module was given or returned on this canvas."""
        return self.kind == "parameters" and self.error_after == 0.0


def first_difference(golden: ModuleTrace, observed: ModuleTrace) -> ModuleFinding | None:
    """Return where two traces of one canvas first part, or None if neither activations nor parameters do.

    Compared in the order in which things happened: a module's inputs when it is called, its outputs when it returns.
    So everything that led to the first difference agrees.
    """
    previous: Step | None = None
    for step in aligned(golden, observed):
        if isinstance(step, Parting):
            return _structural(golden, observed, step)
        if not step.equal:
            return _differing(golden, observed, previous, step)
        previous = step
    return _in_state_alone(golden, observed)


def changed_state(golden: ModuleTrace, observed: ModuleTrace) -> tuple[StatePair, ...]:
    """Return the parameters and buffers that differ, in the order in which their modules are called."""
    pairs = _pairs(golden, observed)
    order = dict.fromkeys((*(call.module for call in golden.calls), *range(len(golden.modules))))
    names = [name for index in order for name in _names(golden.modules[index])]
    return tuple(pairs[name] for name in dict.fromkeys((*names, *pairs)) if pairs[name].equal is False)


def _differing(golden: ModuleTrace, observed: ModuleTrace, previous: Step | None, step: Step) -> ModuleFinding:
    """Return the finding for a step that differs after all before it agreed."""
    kind: Kind = "module"
    call: int | None = step.call
    after = before = None
    if previous is None:
        kind = "input"
    elif step.moment == "input" or step.call in golden.inner:
        kind = "between modules"
        after, before = point(golden, previous), point(golden, step)
        if step.moment == "input":
            call = golden.calls[step.call].parent
    assert call is not None
    module = golden.module_of(call)
    state = () if kind == "input" else _used_by(golden, module, _pairs(golden, observed))
    return ModuleFinding(
        kind="parameters" if any(pair.equal is False for pair in state) else kind,
        module=module.name,
        class_name=module.kind,
        ordinal=golden.ordinal(call),
        after=after,
        before=before,
        detail=None,
        state=state,
        changed=changed_state(golden, observed),
        error_before=None if kind == "input" else 0.0,
        error_after=step.error,
        error_at_output=_error_at_output(golden, observed),
        non_finite=_non_finite(step),
    )


def _structural(golden: ModuleTrace, observed: ModuleTrace, parting: Parting) -> ModuleFinding:
    module = parting.trace.module_of(parting.event.call)
    return ModuleFinding(
        kind="structure",
        module=module.name,
        class_name=module.kind,
        ordinal=parting.trace.ordinal(parting.event.call),
        after=None,
        before=None,
        detail=parting.detail,
        state=(),
        changed=changed_state(golden, observed),
        error_before=None,
        error_after=None,
        error_at_output=_error_at_output(golden, observed),
        non_finite=(0, 0),
    )


def _in_state_alone(golden: ModuleTrace, observed: ModuleTrace) -> ModuleFinding | None:
    """Return the finding for parameters that differ although no activation does, or None."""
    changed = changed_state(golden, observed)
    if not changed:
        return None
    first = changed[0].name.rpartition(".")[0]
    modules = {name: module for trace in (observed, golden) for module in trace.modules for name in module.names}
    pairs = _pairs(golden, observed)
    return ModuleFinding(
        kind="parameters",
        module=first,
        class_name=modules[first].kind,
        ordinal=0,
        after=None,
        before=None,
        detail=None,
        state=tuple(pairs[name] for name in _names(modules[first])),
        changed=changed,
        error_before=0.0,
        error_after=0.0,
        error_at_output=0.0,
        non_finite=(0, 0),
    )


def point(trace: ModuleTrace, step: Step) -> Point:
    """Return which module's input or output a step is, by the names of the golden `trace`."""
    return Point(trace.module_of(step.call).name, step.moment)


def _pairs(golden: ModuleTrace, observed: ModuleTrace) -> dict[str, StatePair]:
    """Return every parameter and buffer of both models by dotted name, under the first name of each module."""
    sides = [dict(_state(trace)) for trace in (golden, observed)]
    pairs = {}
    for name in dict.fromkeys((*_first_names(golden), *_first_names(observed))):
        one, other = (side.get(name) for side in sides)
        either = one or other
        assert either is not None
        digests = [None if record is None else record.digests.get(record.dtype) for record in (one, other)]
        equal = False if one is None or other is None else one.equals(other)
        pairs[name] = StatePair(name, either.role, digests[0], digests[1], equal)
    return pairs


def _state(trace: ModuleTrace) -> Iterator[tuple[str, StateRecord]]:
    """Yield all state under all names that its modules have."""
    for module in trace.modules:
        for record in module.state:
            for name in module.names:
                yield _dotted(name, record.name), record


def _first_names(trace: ModuleTrace) -> Iterator[str]:
    for module in trace.modules:
        yield from _names(module)


def _names(module: ModuleRecord) -> tuple[str, ...]:
    return tuple(_dotted(module.name, record.name) for record in module.state)


def _dotted(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name


def _used_by(golden: ModuleTrace, module: ModuleRecord, pairs: dict[str, StatePair]) -> tuple[StatePair, ...]:
    """Return what `module` itself may compute with: its own state and that of unseen modules inside it."""
    prefixes = tuple(_dotted(name, "") for name in module.names)
    unseen = (golden.modules[index] for index in golden.unseen)
    inside = [one for one in unseen if one is not module and any(name.startswith(prefixes) for name in one.names)]
    return tuple(pairs[name] for one in (module, *inside) for name in _names(one))


def _error_at_output(golden: ModuleTrace, observed: ModuleTrace) -> float | None:
    end = outputs(golden, observed)
    return None if end is None else end.error


def _non_finite(step: Step) -> tuple[int, int]:
    return sum(tensor.non_finite for tensor in step.golden), sum(tensor.non_finite for tensor in step.observed)
