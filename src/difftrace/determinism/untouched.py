"""A forward pass that leaves nothing behind: tensors, module attributes and random generators are put back."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# torch mutates these without saying so in the schema.
_WRITTEN_UNDECLARED = frozenset({"running_mean", "running_var"})


@contextmanager
def untouched(modules: Collection[nn.Module], inputs: object) -> Iterator[Kept]:
    """Put back, whatever happens in the body, what a forward of `modules` on `inputs` changes.

    That is the content and the shape of every tensor that existed before (parameters, buffers, inputs, caches), as far
    as the body reports its operations to the `Kept` it is given; which memory parameters, buffers and inputs have and
    whether they require gradients; the attributes of the modules and the inputs, with the lists, sets and dicts in
    them, however nested, but not other objects; the generators of `random`, numpy and torch.
    """
    with ExitStack() as undo:
        _generators(undo)
        attributes = [vars(module) for module in modules]
        undo.callback(_restore_all, [_Content(container) for container in _containers((attributes, inputs))])
        own = [(module._parameters, module._buffers) for module in modules]
        undo.callback(_restore_all, [_Identity(tensor) for tensor in everything_of(Tensor, (own, inputs))])
        kept = Kept()
        undo.callback(kept.restore)
        yield kept


class Kept:
    """Copies of what operations are about to overwrite, of memory that existed before the first of them.

    Copies on first write: a forward that writes nothing old costs no memory, whatever the size of the model.
    """

    def __init__(self) -> None:
        # By address: memory that is older cannot share one with memory made meanwhile, for it is still in use.
        self._new: set[int] = set()
        self._contents: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self._shapes: list[tuple[Tensor, Tensor]] = []
        self._generators: dict[int, tuple[torch.Generator, Tensor]] = {}

    def before(self, operation: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Take note of what one call of an operation will overwrite."""
        for generator in everything_of(torch.Generator, (args, kwargs)):
            self._generators.setdefault(id(generator), (generator, generator.get_state()))
        reshapes = torch.Tag.inplace_view in operation.tags
        for position, name in _written_arguments(operation):
            value = args[position] if position < len(args) else kwargs.get(name)
            for tensor in everything_of(Tensor, value):
                self._keep(tensor, reshapes)

    def after(self, result: object, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Take note of the memory that one call of an operation brought into being."""
        given = {_address(tensor) for tensor in everything_of(Tensor, (args, kwargs))}
        self._new.update(where for tensor in everything_of(Tensor, result) if (where := _address(tensor)) not in given)

    def restore(self) -> None:
        """Put everything back that was taken note of."""
        with torch.no_grad():
            # Backwards, since storages can overlap: the oldest copy is the one from before.
            for storage, content in reversed(self._contents.values()):
                if storage.nbytes() != content.nbytes():
                    storage.resize_(content.nbytes())
                storage.copy_(content)
            for tensor, alias in reversed(self._shapes):
                tensor.data = alias
        for generator, state in self._generators.values():
            generator.set_state(state)

    def _keep(self, tensor: Tensor, reshapes: bool) -> None:
        where = _address(tensor)
        if where in self._new or where == 0:
            return
        storage = tensor.untyped_storage()
        if reshapes:
            self._shapes.append((tensor, tensor.data))
        if where not in self._contents:
            self._contents[where] = (storage, storage.clone())  # type: ignore[no-untyped-call]


@cache
def _written_arguments(operation: torch._ops.OpOverload) -> tuple[tuple[int, str], ...]:
    """Return position and name of the arguments that an operation overwrites."""
    return tuple(
        (position, argument.name)
        for position, argument in enumerate(operation._schema.arguments)
        if (argument.alias_info is not None and argument.alias_info.is_write) or argument.name in _WRITTEN_UNDECLARED
    )


def _address(tensor: Tensor) -> int:
    """Return where a tensor's memory begins; 0 for one without memory of its own (meta, sparse, a wrapper)."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0


def everything_of(kind: type[Any], value: object) -> Iterator[Any]:
    """Yield every value of one type in arguments or results, however nested."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from everything_of(kind, item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from everything_of(kind, item)


class _Identity:
    """Which memory a tensor has, and whether it requires gradients: what `tensor.data = other` changes unseen."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self._alias = tensor.data
        self._requires_grad = tensor.requires_grad

    def restore(self) -> None:
        if _address(self._tensor) != _address(self._alias):
            self._tensor.data = self._alias
        if self._tensor.requires_grad != self._requires_grad:
            self._tensor.requires_grad_(self._requires_grad)


class _Content:
    """What a list, set or dict holds, and in which order."""

    def __init__(self, container: Any) -> None:
        self._container = container
        self._before = container.copy()

    def restore(self) -> None:
        now, before = _flat(self._container), _flat(self._before)
        if len(self._container) == len(self._before) and all(map(is_, now, before)):
            return
        self._container.clear()
        if isinstance(self._container, list):
            self._container[:] = self._before
        else:
            self._container.update(self._before)


def _restore_all(saved: Iterable[_Content | _Identity]) -> None:
    for one in saved:
        one.restore()


def _containers(value: object) -> Iterator[Any]:
    """Yield every list, set and dict in a value, each once; subclasses may have rules of their own and are left out."""
    seen: set[int] = set()
    ahead: list[Any] = [value]
    while ahead:
        one = ahead.pop()
        if type(one) not in (dict, OrderedDict, list, set, tuple) or id(one) in seen:
            continue
        seen.add(id(one))
        if not isinstance(one, tuple):
            yield one
        ahead.extend(one.values() if isinstance(one, dict) else one)


def _flat(container: Any) -> Iterator[object]:
    yield from container
    if isinstance(container, dict):
        yield from container.values()


def _generators(undo: ExitStack) -> None:
    undo.callback(random.setstate, random.getstate())
    undo.callback(np.random.set_state, np.random.get_state())
    undo.callback(torch.set_rng_state, torch.get_rng_state())
    # Only of devices that are in use: asking others would set up a context on each.
    for backend in (torch.cuda, torch.xpu):
        if backend.is_available() and backend.is_initialized():
            undo.callback(backend.set_rng_state_all, backend.get_rng_state_all())
    if torch.backends.mps.is_available():
        undo.callback(torch.mps.set_rng_state, torch.mps.get_rng_state())
