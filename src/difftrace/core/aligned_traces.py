"""Two traces walked side by side, for as long as the same modules are called with tensors of the same shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from difftrace.core.module_trace import Event, ModuleTrace, Moment, TensorRecord


@dataclass(frozen=True)
class Step:
    """A moment that both runs have: a call's start or end, and what passes there on either side.

    Attributes:
        call: index of the call in the golden trace.
        moment: "input" or "output".
        indices: of the golden tensors in their trace.
        golden: the tensors, in order.
        observed: likewise, as many and of the same shapes.
    """

    call: int
    moment: Moment
    indices: tuple[int, ...]
    golden: tuple[TensorRecord, ...]
    observed: tuple[TensorRecord, ...]

    @property
    def equal(self) -> bool:
        """Whether both sides are equal bit for bit."""
        return all(one.equals(other) for one, other in zip(self.golden, self.observed, strict=True))

    @property
    def errors(self) -> dict[int, float]:
        """The relative distance of each tensor by its golden index, where it can be told."""
        found = {}
        for index, one, other in zip(self.indices, self.golden, self.observed, strict=True):
            error = one.distance(other)
            if error is not None:
                found[index] = error
        return found

    @property
    def error(self) -> float | None:
        """The largest of `errors`."""
        return max(self.errors.values(), default=None)

    @property
    def roundoff(self) -> float:
        """Unit roundoff of the coarsest dtype among them."""
        return max((tensor.roundoff for tensor in (*self.golden, *self.observed)), default=0.0)


@dataclass(frozen=True)
class Parting:
    """Where the two runs stop being comparable: `event` of `trace`, the golden one unless it has ended."""

    trace: ModuleTrace
    event: Event
    detail: str


def aligned(golden: ModuleTrace, observed: ModuleTrace) -> Iterator[Step | Parting]:
    """Yield the steps of two traces in the order in which they happened; a parting, if there is one, is the last.

    Modules are told by their names; one name in common is enough, so that a module used twice under two names and two
    equal modules are the same thing.
    """
    for one, other in zip_longest(golden.events(), observed.events()):
        detail = _difference(golden, observed, one, other)
        if detail is not None:
            trace, event = (golden, one) if one is not None else (observed, other)
            assert event is not None
            yield Parting(trace, event, detail)
            return
        yield _step(golden, observed, one, other)


def outputs(golden: ModuleTrace, observed: ModuleTrace) -> Step | None:
    """Return the end of both models' own calls; None where what they return cannot be compared."""
    one, other = (Event(0, "output", trace.calls[0].outputs) for trace in (golden, observed))
    return None if _difference(golden, observed, one, other) else _step(golden, observed, one, other)


def _step(golden: ModuleTrace, observed: ModuleTrace, one: Event, other: Event) -> Step:
    return Step(
        call=one.call,
        moment=one.moment,
        indices=one.tensors,
        golden=tuple(golden.tensors[index] for index in one.tensors),
        observed=tuple(observed.tensors[index] for index in other.tensors),
    )


def _difference(golden: ModuleTrace, observed: ModuleTrace, one: Event | None, other: Event | None) -> str | None:
    """Return what keeps two events from being compared, or None."""
    if one is None or other is None or one.moment != other.moment or not _same_module(golden, observed, one, other):
        return f"golden: {_happening(golden, one)}; observed: {_happening(observed, other)}"
    if len(one.tensors) != len(other.tensors):
        return f"{one.moment} of {len(one.tensors)} tensors in the golden run, of {len(other.tensors)} in the observed"
    for a, b in zip(one.tensors, other.tensors, strict=True):
        shapes = golden.tensors[a].shape, observed.tensors[b].shape
        if shapes[0] != shapes[1]:
            return f"{one.moment} of shape {list(shapes[0])} in the golden run, {list(shapes[1])} in the observed"
    return None


def _same_module(golden: ModuleTrace, observed: ModuleTrace, one: Event, other: Event) -> bool:
    return not set(golden.module_of(one.call).names).isdisjoint(observed.module_of(other.call).names)


def _happening(trace: ModuleTrace, event: Event | None) -> str:
    if event is None:
        return "nothing more"
    name = trace.module_of(event.call).name or "the model"
    return f"{name} {'is called' if event.moment == 'input' else 'returns'}"
