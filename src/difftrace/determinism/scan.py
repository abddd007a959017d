"""Runs a model forward once and lists what in it can differ between two equal runs."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from typing import Any, Final

import torch
from torch import Tensor, nn

from difftrace.core.errors import ScanError
from difftrace.determinism.call_site import ModuleNames
from difftrace.determinism.generators import host_states
from difftrace.determinism.hazards import HAZARDS
from difftrace.determinism.scan_report import Finding, ScanReport, in_order
from difftrace.determinism.untouched import untouched
from difftrace.determinism.watch import Watch

# torch's number for the mode in which operations without a deterministic form raise.
_RAISES: Final = 2


def scan(model: Callable[..., Any], inputs: Tensor | tuple[Any, ...] | Mapping[str, Any]) -> ScanReport:
    """Run `model` once on `inputs`, without gradients, and list the operations that need not repeat themselves.

    `model` is a module, or any function that runs one. `inputs` is its one argument, a tuple of positional arguments
    or a mapping of keyword arguments. Findings are random operations (dropout in training mode), nondeterministic ones
    (`scatter_add`, `cumsum`, for CUDA and ROCm also when the scan runs on a CPU), those whose result leaves ties open
    (`topk`, `sort` without `stable`) and those whose kernel torch chooses (attention), each with its module, the
    reason and the fix. What the settings in force already settle is no finding: under `difftrace.enforce()` attention
    has one backend, and `scatter_add` a deterministic form. Operations that raise there only warn while scanned.

    Afterwards the model (state, flags, attributes, hooks), the inputs and all random generators are as before. One
    forward is seen: branches not taken, the backward pass and other threads are not. Compiled code runs uncompiled (a
    model that compiles for the first time inside its forward should run once before). Whether an indexed write
    overwrites itself is read off the indices of this forward.

    Raises ScanError for what is no model, no inputs, or not yet initialised. What the forward raises is passed on.

    Source: torch.use_deterministic_algorithms (2.13) and the documentation of the operations; see
    `difftrace.determinism.hazards`.
    """
    args, kwargs = _arguments(inputs)
    modules = tuple(_modules_of(model))
    for module in modules:
        _check_initialised(module)
    everything = dict.fromkeys(part for module in modules for part in module.modules())
    with untouched(everything, (args, kwargs)) as kept, _as_it_stands(), torch.no_grad():
        watch = Watch(ModuleNames(_root(model)), _forward.__code__, kept)
        before = host_states()
        with watch:
            _forward(model, args, kwargs)
        drawn = [name for name, state in host_states().items() if state != before[name]]
    return ScanReport(
        findings=in_order([*watch.findings(), *map(_of_host_generator, drawn)]),
        operations=watch.operations,
        device=watch.device,
        training=any(module.training for module in everything),
        torch=torch.__version__,
        unknown=tuple(sorted(watch.unknown)),
    )


def _forward(model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    model(*args, **kwargs)


def _arguments(inputs: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    match inputs:
        case Tensor():
            return (inputs,), {}
        case tuple():
            return inputs, {}
        case Mapping():
            return (), {str(name): value for name, value in inputs.items()}
    raise ScanError(
        "inputs must be a tensor, a tuple of positional arguments or a mapping of keyword arguments, "
        f"not {type(inputs).__name__}"
    )


def _root(model: object) -> nn.Module | None:
    """Return the module that names are relative to, if the model is one or a method of one."""
    owner = getattr(model, "__self__", model)
    return owner if isinstance(owner, nn.Module) else None


def _modules_of(model: object) -> Iterator[nn.Module]:
    """Yield the modules that a model consists of or, being a function, refers to."""
    root = _root(model)
    if root is not None:
        yield root
    elif isinstance(model, partial):
        for value in (model.func, *model.args, *model.keywords.values()):
            if callable(value):
                yield from _modules_of(value)
    elif inspect.isfunction(model):
        names = inspect.getclosurevars(model)
        for value in chain(names.nonlocals.values(), names.globals.values()):
            if isinstance(value, nn.Module):
                yield value
    elif not callable(model):
        kind = type(model).__name__
        hint = "; give its .model" if isinstance(getattr(model, "model", None), nn.Module) else ""
        raise ScanError(f"model must be a torch.nn.Module or a function that runs one, not {kind}{hint}")


def _check_initialised(model: nn.Module) -> None:
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise ScanError(f"{name} is not initialised yet, which a scan could not undo: run the model once before")


@contextmanager
def _as_it_stands() -> Iterator[None]:
    """Have every operation run and be seen, even those that are to raise and those inside of compiled code."""
    with ExitStack() as undo:
        if torch.get_deterministic_debug_mode() == _RAISES:
            undo.callback(torch.set_deterministic_debug_mode, _RAISES)
            torch.set_deterministic_debug_mode("warn")
            undo.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation")
        # Without it nothing is compiled yet, and importing it takes seconds.
        if "torch._dynamo" in sys.modules:
            undo.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def _of_host_generator(name: str) -> Finding:
    (row,) = HAZARDS[name]
    return Finding(row.kind, name, "", 1, "", row.devices, row.why, row.fix, row.source)
