"""One forward pass with hooks on every module: what each was given and returned, and its parameters."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from difftrace.core.module_trace import CallRecord, ModuleRecord, ModuleTrace, Role, StateRecord, TensorRecord
from difftrace.determinism.digest import without_content
from difftrace.determinism.reductions import Reduced, collect, reduce_cast, reduce_tensor

# What a model stored in float32 is loaded in as well.
_NARROWER: Final = (torch.bfloat16, torch.float16)


def trace_modules(model: nn.Module, *args: Any, **kwargs: Any) -> ModuleTrace:
    """Run `model(*args, **kwargs)` once without gradients and return what passed through its modules.

    Tensors are found in nested tuples, lists, mappings (so in the output objects of transformers) and dataclasses;
    anything else is ignored. Inputs are read when a module is called and outputs when it returns, so that in-place
    operations change nothing that was recorded; hooks that the model already has come before. Digests and sketches
    are taken on the devices where the tensors lie and copied to the host once, at the end.

    A module whose `forward` is called directly, or whose parameters are used by others, is not seen: what it computes
    counts as a part of the module around it (`ModuleTrace.unseen`). What was compiled is run as it is written, because
    compiled code need not call modules one by one. The model is as before afterwards, also when it raises.
    """
    names = _names(model)
    recorder = _Recorder({module: index for index, module in enumerate(names)})
    state = [_state(module) for module in names]
    before = _generator_states(model)
    with torch.no_grad(), _eagerly(), ExitStack() as hooks:
        for module in names:
            hooks.callback(module.register_forward_pre_hook(recorder.enter, with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(recorder.leave, always_call=True).remove)
        model(*args, **kwargs)
    drawn = any(not torch.equal(one, other) for one, other in zip(before, _generator_states(model), strict=True))
    flat = [digest for module in state for one in module for digest in one.digests]
    records = collect([*recorder.reduced, *flat])
    passed, rest = records[: len(recorder.reduced)], iter(records[len(recorder.reduced) :])
    modules = tuple(
        ModuleRecord(tuple(found), type(module).__name__, _has_forward(module), _finished(own, rest))
        for (module, found), own in zip(names.items(), state, strict=True)
    )
    return _compact(modules, recorder.calls, passed, drawn)


def tensors_in(value: object) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists, mappings and dataclasses, in their order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from tensors_in(one)
    elif isinstance(value, tuple | list):
        for one in value:
            yield from tensors_in(one)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))


def _eagerly() -> AbstractContextManager[object]:
    # Whoever compiled something has imported the compiler; nobody else should wait for it.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


class _Recorder:
    """The hooks: `calls` refer to tensors by their place in `reduced`."""

    def __init__(self, indices: Mapping[nn.Module, int]) -> None:
        self.calls: list[CallRecord] = []
        self.reduced: list[Reduced] = []
        self._indices = indices
        self._open: list[int] = []

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        parent = self._open[-1] if self._open else None
        self._open.append(len(self.calls))
        self.calls.append(CallRecord(self._indices[module], parent, self._reduce((args, kwargs)), ()))

    def leave(self, module: nn.Module, _args: object, output: object) -> None:
        # Also called for a module that raised, even in a hook before `enter`.
        if not self._open or self.calls[self._open[-1]].module != self._indices[module]:
            return
        call = self._open.pop()
        self.calls[call] = dataclasses.replace(self.calls[call], outputs=self._reduce(output))

    def _reduce(self, value: object) -> tuple[int, ...]:
        first = len(self.reduced)
        self.reduced += map(reduce_tensor, tensors_in(value))
        return tuple(range(first, len(self.reduced)))


@dataclass(frozen=True, eq=False)
class _State:
    """A parameter or buffer before its digests are on the host."""

    name: str
    role: Role
    tensor: Tensor
    digests: list[Reduced]


def _names(model: nn.Module) -> dict[nn.Module, list[str]]:
    """Return every module object with all its names."""
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    return names


def _has_forward(module: nn.Module) -> bool:
    return type(module).forward is not nn.Module.forward


def _state(module: nn.Module) -> list[_State]:
    found = []
    for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
        found.append(_State(name, "parameter", parameter, _digests(parameter)))
    for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
        role: Role = "non-persistent buffer" if name in module._non_persistent_buffers_set else "buffer"
        found.append(_State(name, role, buffer, _digests(buffer)))
    return found


def _digests(tensor: Tensor) -> list[Reduced]:
    if without_content(tensor) is not None:
        return []
    casts = _NARROWER if tensor.dtype == torch.float32 else ()
    return [reduce_cast(tensor, dtype) for dtype in (tensor.dtype, *casts)]


def _finished(state: list[_State], records: Iterator[TensorRecord]) -> tuple[StateRecord, ...]:
    """Return a module's state with its digests, the next of `records`."""
    finished = []
    for one in state:
        digests = {record.dtype: str(record.digest) for _, record in zip(one.digests, records, strict=False)}
        dtype = str(one.tensor.dtype).removeprefix("torch.")
        finished.append(StateRecord(one.name, one.role, dtype, tuple(one.tensor.shape), digests))
    return tuple(finished)


def _compact(
    modules: tuple[ModuleRecord, ...], calls: list[CallRecord], passed: list[TensorRecord], drawn: bool
) -> ModuleTrace:
    """Return the trace with every content once."""
    places: dict[TensorRecord, int] = {}
    place = [places.setdefault(record, len(places)) for record in passed]
    renumbered = (
        dataclasses.replace(
            call,
            inputs=tuple(place[index] for index in call.inputs),
            outputs=tuple(place[index] for index in call.outputs),
        )
        for call in calls
    )
    return ModuleTrace(modules, tuple(places), tuple(renumbered), drawn)


def _generator_states(model: nn.Module) -> list[Tensor]:
    """Return the states of the generators that the model can draw from: the CPU's and its devices'."""
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in sorted(devices, key=str))]
