"""Sees what a loop draws at random and what it selects, without changing either and without waiting for the device.

A mode for torch's Python functions would see less: it is off within the function that it has seen, so that what
`torch.nn.functional` draws inside stays hidden, and `torch.nn.MultiheadAttention` takes another path under it. So this
is a mode for what torch dispatches, as the scan of models uses, with the same table of operations.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from types import FrameType, TracebackType
from typing import Any, Final, Literal

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from difftrace.capture.selections import boundary_of, can_select
from difftrace.core.audit import Audit, Draw, Selection
from difftrace.determinism.call_site import in_a_forward, place, public_function, stack_within
from difftrace.determinism.generators import host_states
from difftrace.determinism.hazards import HAZARDS
from difftrace.determinism.hazards.conditions import Call
from difftrace.determinism.operations import call_of, operation_name, rows_of
from difftrace.determinism.untouched import everything_of

# Frames that stand between an operation and the code that asked for it; what they do themselves is not the loop's.
_OURS: Final = "difftrace.capture"
_TORCH: Final = "torch"
_MODES: Final = "torch.utils._python_dispatch"


@dataclass(frozen=True)
class _Pending:
    """A selection whose ties are still on the device."""

    selection: Selection
    tied: Tensor


class Auditor:
    """A context in which a loop's draws and selections are noted; in the thread that entered it.

    `forwards` returns how many forwards have been answered so far: what the loop does after the first belongs to step
    0, as does what that forward does itself.
    """

    def __init__(self, forwards: Callable[[], int]) -> None:
        """Number steps by `forwards`."""
        self._forwards = forwards
        self._mode = _uncompiled()(self._note)
        self._stack = ExitStack()
        self._draws: list[Draw] = []
        self._selections: list[_Pending] = []
        self._host: dict[str, object] = {}
        self._drawn_from: tuple[str, ...] = ()

    def __enter__(self) -> Auditor:
        self._host = host_states()
        self._stack.enter_context(self._mode)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)
        self._drawn_from = tuple(name for name, state in host_states().items() if state != self._host[name])

    def result(self) -> Audit:
        """Return what was noted; each device is waited for once."""
        tied = _read([pending.tied for pending in self._selections])
        selections = (
            replace(pending.selection, tied=count) for pending, count in zip(self._selections, tied, strict=True)
        )
        return Audit(tuple(self._draws), tuple(selections), self._drawn_from)

    def _note(self, func: Any, call: Call, result: Any) -> None:
        """Note one operation if it drew or selected; it has run."""
        name = operation_name(func)
        drew = [
            row for row in rows_of(func) or () if row.kind == "random" and (not row.condition or row.condition(call))
        ]
        boundary = None if drew else boundary_of(name, call, result)
        if not drew and boundary is None:
            return
        stack = _of_the_loop(stack_within(None))
        if stack is None:
            return
        inside = in_a_forward(stack)
        step = self._forwards() - (not inside)
        where = next((place(frame) for frame in stack if not _belongs(frame, _TORCH)), "")
        first = next(iter(everything_of(Tensor, (result, dict(call.arguments)))), None)
        if first is None:
            return
        dtype = str(first.dtype).removeprefix("torch.")
        if drew:
            public = public_function(stack, HAZARDS) or name.removesuffix("_")
            generator: Literal["global", "given"] = "global" if call.get("generator") is None else "given"
            shape = tuple(first.shape)
            self._draws.append(Draw(step, public, shape, dtype, first.device.type, generator, where, inside))
        elif boundary is not None:
            scores: Tensor = call.arguments["self"]
            selection = Selection(
                step=step,
                operation=name,
                rows=boundary.rows,
                size=boundary.size,
                chosen=boundary.chosen,
                tied=0,
                settled=boundary.settled,
                dtype=str(scores.dtype).removeprefix("torch."),
                device=scores.device.type,
                place=where,
                in_model=inside,
            )
            self._selections.append(_Pending(selection, boundary.tied))


class _Seen(TorchDispatchMode):
    """Runs every operation as it is, and tells `note` of it afterwards."""

    # Without it torch refuses to run operations such as flex_attention and cond.
    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Otherwise the first operation imports torch's compiler, which takes seconds.
        return False

    def __init__(self, note: Callable[[Any, Call, Any], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._note = note

    def __torch_dispatch__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one operation, then note it."""
        kwargs = kwargs or {}
        if not isinstance(func, OpOverload):
            return func(*args, **kwargs)
        # Otherwise done before an operation gets here.
        if torch.is_inference_mode_enabled() and func._can_decompose():
            with self:
                return func.decompose(*args, **kwargs)
        result = func(*args, **kwargs)
        if _concerns(func):
            self._note(func, call_of(func, args, kwargs), result)
        return result


def _uncompiled() -> type[_Seen]:
    """Return the mode in a form that the compiler, where it is loaded, does not try to compile along with the loop."""
    compiler = sys.modules.get("torch._dynamo")
    if compiler is None:
        return _Seen
    return type(_Seen.__name__, (_Seen,), {"__torch_dispatch__": compiler.disable(_Seen.__torch_dispatch__)})


@lru_cache(maxsize=1024)
def _concerns(func: OpOverload[..., Any]) -> bool:
    """Whether some calls of an operation draw or select: few of the many that a forward makes."""
    return can_select(operation_name(func)) or any(row.kind == "random" for row in rows_of(func) or ())


def _of_the_loop(stack: list[FrameType]) -> list[FrameType] | None:
    """Return the frames from the operation outwards without those of the mode; None where the recorder itself asked."""
    frames = [frame for frame in stack if not (_belongs(frame, __name__) or _belongs(frame, _MODES))]
    asked = next((frame for frame in frames if not _belongs(frame, _TORCH)), None)
    return None if asked is not None and _belongs(asked, _OURS) else frames


def _belongs(frame: FrameType, package: str) -> bool:
    module = str(frame.f_globals.get("__name__", ""))
    return module == package or module.startswith(f"{package}.")


def _read(numbers: Sequence[Tensor]) -> list[int]:
    """Return the values of 0-dimensional tensors, with one copy from each device."""
    by_device: dict[torch.device, list[int]] = {}
    for index, number in enumerate(numbers):
        by_device.setdefault(number.device, []).append(index)
    values: dict[int, int] = {}
    for indices in by_device.values():
        values.update(zip(indices, torch.stack([numbers[index] for index in indices]).tolist(), strict=True))
    return [values[index] for index in range(len(numbers))]
