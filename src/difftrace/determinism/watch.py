"""Sees every operation that torch dispatches, and remembers those that the table of hazards concerns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import CodeType
from typing import Any, Final

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from difftrace.determinism import switches
from difftrace.determinism.call_site import ModuleNames, public_function, stack_within
from difftrace.determinism.hazards import HAZARDS
from difftrace.determinism.hazards.attention import ATTENTION_BACKENDS, PLAIN_ATTENTION
from difftrace.determinism.hazards.conditions import Call
from difftrace.determinism.hazards.randomness import ATTENTION_DROPOUT
from difftrace.determinism.hazards.row import Hazard
from difftrace.determinism.operations import call_of, operation_name, rows_of
from difftrace.determinism.scan_report import Finding
from difftrace.determinism.untouched import Kept, everything_of

_TENSORS_SHOWN: Final = 3
# In its plain form attention is no operation of its own. Its dropout is known by how soon after its softmax it draws.
_TO_ITS_DROPOUT: Final = 2


@dataclass(frozen=True)
class _Met:
    """One row of the table, met in one operation of one module on one kind of device."""

    hazard: Hazard
    operation: str
    module: str
    backend: str | None
    device: str


@dataclass
class _Record:
    """How often it was met, and what the first time was like."""

    count: int
    sample: str


class Watch(TorchDispatchMode):
    """A dispatch mode that judges each operation before it runs, and reports it to `kept`.

    `run` is the code that calls the model, where the stack of callers ends. `operations` counts what ran, `unknown`
    names operations of other libraries.

    A mode that intercepts torch's Python functions would see their public names, but modules ask whether one is active
    and then take another path (torch.nn.MultiheadAttention does).
    """

    # Without it torch refuses to run operations such as flex_attention and cond.
    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Otherwise the first operation imports torch's compiler, which takes seconds. A scan compiles nothing anyway.
        return False

    def __init__(self, names: ModuleNames, run: CodeType, kept: Kept) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0
        self.unknown: set[str] = set()
        self._names = names
        self._run = run
        self._kept = kept
        self._met: dict[_Met, _Record] = {}
        self._devices: set[str] = set()
        self._plain_attention_at = -_TO_ITS_DROPOUT - 1

    def __torch_dispatch__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Judge one operation, then run it."""
        kwargs = kwargs or {}
        # Otherwise done before an operation gets here.
        if torch.is_inference_mode_enabled() and isinstance(func, OpOverload) and func._can_decompose():
            with self:
                return func.decompose(*args, **kwargs)
        self.operations += 1
        self._devices.update(tensor.device.type for tensor in everything_of(Tensor, args))
        self._judge(func, args, kwargs)
        if not isinstance(func, OpOverload):
            return func(*args, **kwargs)
        self._kept.before(func, args, kwargs)
        result = func(*args, **kwargs)
        self._kept.after(result, args, kwargs)
        return result

    @property
    def device(self) -> str:
        """The kind of device the operations ran on: the accelerator if there was one."""
        return next(iter(sorted(self._devices - {"cpu"})), "cpu")

    def findings(self) -> Iterator[Finding]:
        """Yield what was met and can matter, in the order in which it was first met."""
        for met, record in self._met.items():
            row = met.hazard
            if self._matters(row, met.device):
                yield Finding(
                    kind=row.kind,
                    operation=met.operation,
                    module=met.module,
                    count=record.count,
                    sample=record.sample,
                    devices=row.devices,
                    why=row.why,
                    fix=row.fix,
                    source=row.source,
                    backend=met.backend,
                )

    def _matters(self, row: Hazard, ran_on: str) -> bool:
        """Whether a row holds where the operation ran, or where it would run if the model were moved to a GPU."""
        if "any" in row.devices or ran_on in row.devices:
            return True
        return ran_on != "cuda" and ran_on == self.device

    def _judge(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        name = operation_name(func)
        if name == PLAIN_ATTENTION:
            self._plain_attention_at = self.operations
        rows = rows_of(func)
        if rows is None:
            self.unknown.add(name)
            return
        if not rows:
            return
        call = call_of(func, args, kwargs)
        rows = tuple(row for row in rows if _applies(row, call))
        if not rows:
            return
        stack = stack_within(self._run)
        if any(row.kind == "random" for row in rows):
            public = public_function(stack, HAZARDS)
            if public is not None:
                name = public
                rows = tuple(row for row in HAZARDS[public] if _applies(row, call))
            elif self.operations - self._plain_attention_at <= _TO_ITS_DROPOUT:
                rows = (ATTENTION_DROPOUT,)
        module = self._names.innermost(stack)
        tensors = list(islice(everything_of(Tensor, (args, kwargs)), _TENSORS_SHOWN))
        device = tensors[0].device.type if tensors else self.device
        sample = ", ".join(map(_described, tensors))
        for row in rows:
            backend = ATTENTION_BACKENDS.get(name) if row.kind == "backend-chosen" else None
            met = _Met(row, row.shown_as or name, module, backend, device)
            self._met.setdefault(met, _Record(0, sample)).count += 1


def _applies(row: Hazard, call: Call) -> bool:
    if row.condition is not None and not row.condition(call):
        return False
    # Asked for every call, since a model may choose its attention backend for a part of its forward.
    return not any(_IN_FORCE[setting]() for setting in row.settled_by)


def _one_attention_backend() -> bool:
    return switches.SWITCHES["attention_backend"].read() in switches.ATTENTION_BACKENDS


_IN_FORCE: Final = {
    "deterministic-algorithms": torch.are_deterministic_algorithms_enabled,
    "deterministic-cudnn": lambda: bool(torch.backends.cudnn.deterministic),
    "one-attention-backend": _one_attention_backend,
}


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
