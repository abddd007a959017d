"""What every module of a model was given and returned in one forward pass, small enough to keep in a file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, TypeAlias

from difftrace.core.recording import JsonScalar, ModelIdentity

# A prime, so that no power of two between two values brings both into one bucket.
SKETCH_BUCKETS: Final = 67

Role: TypeAlias = Literal["parameter", "buffer", "non-persistent buffer"]
Moment: TypeAlias = Literal["input", "output"]
Environment: TypeAlias = Mapping[str, "JsonScalar | list[JsonScalar]"]

# Unit roundoff by dtype: half the distance from 1 to the next number.
_ROUNDOFF: Final = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
# Of what is not in the table: the 8-bit formats, whose roundoff is at most this.
_COARSEST: Final = 2.0**-3


@dataclass(frozen=True)
class TensorRecord:
    """A tensor's content, reduced.

    Attributes:
        dtype: torch's name without its prefix, "bfloat16".
        shape: its sizes.
        digest: what `difftrace.digest` gives, "sha256:…"; None for a tensor without dense content of its own.
        norm: Euclidean norm of its finite values; None unless it is of floating point and has a digest.
        non_finite: number of its values that are NaN or infinite.
        sketch: `SKETCH_BUCKETS` numbers from which the distance to another tensor of this shape can be estimated
            (`difftrace.determinism.sketch`); None where `norm` is.
    """

    dtype: str
    shape: tuple[int, ...]
    digest: str | None
    norm: float | None
    non_finite: int
    sketch: tuple[float, ...] | None

    def equals(self, other: TensorRecord) -> bool:
        """Say whether both stand for the same bits; of tensors without content, for the same dtype and shape."""
        return (self.dtype, self.shape, self.digest) == (other.dtype, other.shape, other.digest)

    def distance(self, other: TensorRecord) -> float | None:
        """Return the estimated norm of the difference, relative to the larger of both norms.

        0 for equal bits, infinity where a different number of values is not finite, None where it cannot be told:
        integers, other shapes, no content. The estimate's standard deviation is about 9 % of it.
        """
        if self.equals(other):
            return 0.0
        if self.shape != other.shape or self.sketch is None or other.sketch is None:
            return None
        if self.non_finite != other.non_finite:
            return math.inf
        largest = max(self.norm or 0.0, other.norm or 0.0)
        if largest == 0.0:
            return 0.0
        return math.dist(self.sketch, other.sketch) / largest

    @property
    def roundoff(self) -> float:
        """The unit roundoff of its dtype: what one rounding changes a value by at most, relatively."""
        return _ROUNDOFF.get(self.dtype, _COARSEST)


@dataclass(frozen=True)
class StateRecord:
    """One parameter or buffer.

    Attributes:
        name: within its module, "weight".
        role: "parameter", "buffer" or "non-persistent buffer" (computed when the model is built).
        dtype: as it lies in memory.
        shape: its sizes.
        digests: its digest by dtype: its own and, for float32, those it would have after casting to bfloat16 and
            float16, so that a model loaded in another dtype can be compared. Empty where it has no content here.
    """

    name: str
    role: Role
    dtype: str
    shape: tuple[int, ...]
    digests: Mapping[str, str]

    def equals(self, other: StateRecord) -> bool | None:
        """Say whether both hold the same values, in a dtype that both can be had in; None without one."""
        if self.shape != other.shape:
            return False
        for dtype in (self.dtype, other.dtype):
            if dtype in self.digests and dtype in other.digests:
                return self.digests[dtype] == other.digests[dtype]
        return None


@dataclass(frozen=True)
class ModuleRecord:
    """One module object.

    Attributes:
        names: all dotted names it has in the model, the first found first; "" is the model itself.
        kind: name of its class.
        callable: whether its class has a `forward`, which lists of modules lack.
        state: its own parameters and buffers, without its children's.
    """

    names: tuple[str, ...]
    kind: str
    callable: bool
    state: tuple[StateRecord, ...]

    @property
    def name(self) -> str:
        """The first of its names."""
        return self.names[0]


@dataclass(frozen=True)
class CallRecord:
    """One call of a module; tensors are indices into the trace's.

    Attributes:
        module: index of the module.
        parent: index of the call it was made in; None for the model's own.
        inputs: the tensors among its arguments, in order.
        outputs: the tensors in its result, in order; none if it raised and the module around it went on.
    """

    module: int
    parent: int | None
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Event:
    """A call's start ("input") or end ("output") with the tensors that cross there."""

    call: int
    moment: Moment
    tensors: tuple[int, ...]


@dataclass(frozen=True)
class ModuleTrace:
    """One forward pass seen through its modules.

    Attributes:
        modules: all modules of the model, the model itself first.
        tensors: what passed, every content once.
        calls: in the order in which they began; the first is the model's own.
        draws_random_numbers: whether a random generator was used.
    """

    modules: tuple[ModuleRecord, ...]
    tensors: tuple[TensorRecord, ...]
    calls: tuple[CallRecord, ...]
    draws_random_numbers: bool

    def module_of(self, call: int) -> ModuleRecord:
        """Return the module that `calls[call]` is a call of."""
        return self.modules[self.calls[call].module]

    def ordinal(self, call: int) -> int:
        """Return how many calls of the same module came before `calls[call]`."""
        module = self.calls[call].module
        return sum(one.module == module for one in self.calls[:call])

    def events(self) -> Iterator[Event]:
        """Yield starts and ends of all calls in the order in which they happened."""
        open_calls: list[int] = []
        for index, call in enumerate(self.calls):
            while open_calls and open_calls[-1] != call.parent:
                yield self._end(open_calls.pop())
            open_calls.append(index)
            yield Event(index, "input", call.inputs)
        while open_calls:
            yield self._end(open_calls.pop())

    def _end(self, call: int) -> Event:
        return Event(call, "output", self.calls[call].outputs)

    @cached_property
    def inner(self) -> frozenset[int]:
        """The calls in which other modules were called."""
        return frozenset(call.parent for call in self.calls if call.parent is not None)

    @cached_property
    def unseen(self) -> tuple[int, ...]:
        """The modules that have a `forward` but were not called as modules.

        Either nothing used them, or their `forward` or their parameters were used directly: then they count as a part
        of the module around them.
        """
        called = {call.module for call in self.calls}
        return tuple(i for i, module in enumerate(self.modules) if module.callable and i not in called)


@dataclass(frozen=True)
class TraceOrigin:
    """What a trace was made from.

    Attributes:
        baseline: digest of the baseline whose canvas was run.
        step: the step before which the canvas is, 0-based.
        sequence: which of the baseline's sequences; None for all of them as one batch.
        model: what ran.
        environment: the fingerprint of where it ran, with the numeric canary.
    """

    baseline: str
    step: int
    sequence: int | None
    model: ModelIdentity | None
    environment: Environment


@dataclass(frozen=True)
class GoldenLayers:
    """A trace to compare with, and where it is from: the content of a side file."""

    origin: TraceOrigin
    trace: ModuleTrace
