"""How many elements tie at the boundary of a selection: counted on the device, read back by whoever wants to know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from difftrace.determinism.hazards.conditions import Call


@dataclass(frozen=True)
class Boundary:
    """One selection from `rows` rows of `size` elements; `tied` is a number on the device, [] int64.

    `chosen`, `tied` and `settled` as in `difftrace.core.audit.Selection`.
    """

    rows: int
    size: int
    chosen: int
    tied: Tensor
    settled: bool


# Reads one call of an operation, and what it returned.
Reader = Callable[[Call, Any], "Boundary | None"]


def boundary_of(name: str, call: Call, result: Any) -> Boundary | None:
    """Return what the operation `name` selected among floating-point numbers; None if it selected nothing.

    Operations that return values alone select nothing, nor do those on numbers without values (the meta device).
    """
    reader = _READERS.get(name)
    scores = call.get("self")
    if reader is None or not isinstance(scores, Tensor):
        return None
    if not scores.is_floating_point() or scores.is_meta or scores.numel() == 0:
        return None
    return reader(call, result)


def can_select(name: str) -> bool:
    """Whether some calls of the operation `name` select."""
    return name in _READERS


def _of_topk(call: Call, result: Any) -> Boundary | None:
    scores, dim, values = call.arguments["self"], call.arguments["dim"], result[0]
    if scores.dim() == 0 or values.numel() == 0:
        return None
    last = values.amin(dim, keepdim=True) if call.get("largest", True) else values.amax(dim, keepdim=True)
    equal = (scores == last).sum(dim, keepdim=True) - (values == last).sum(dim, keepdim=True)
    return _boundary(scores, dim, values.shape[dim], (equal * _allowed(last)).sum(), settled=False)


def _of_sort(call: Call, result: Any) -> Boundary | None:
    scores, dim, values = call.arguments["self"], call.arguments["dim"], result[0]
    if scores.dim() == 0:
        return None
    size = scores.shape[dim]
    left, right = values.narrow(dim, 0, size - 1), values.narrow(dim, 1, size - 1)
    count = ((left == right) & _allowed(left)).sum()
    return _boundary(scores, dim, size, count, settled=call.get("stable") is True)


def _of_extreme(call: Call, result: Any) -> Boundary | None:
    """Read argmax and argmin, which return indices, and max and min along a dimension, which return both."""
    scores, dim = call.arguments["self"], call.get("dim")
    indices = result if isinstance(result, Tensor) else result[1]
    if indices.dtype != torch.int64:
        return None
    if dim is None:
        scores, dim, indices = scores.flatten(), 0, indices.view(1)
    elif scores.dim() == 0:
        return None
    elif not call.get("keepdim"):
        indices = indices.unsqueeze(dim)
    return _one_of(scores, dim, scores.gather(dim, indices), settled=True)


def _of_middle(call: Call, result: Any) -> Boundary | None:
    """Read kthvalue and median along a dimension, which say where they found their value."""
    if "dim" not in call.arguments or not isinstance(result, tuple):
        return None
    scores, dim, found = call.arguments["self"], call.arguments["dim"], result[0]
    if scores.dim() == 0:
        return None
    return _one_of(scores, dim, found if call.get("keepdim") else found.unsqueeze(dim), settled=False)


def _one_of(scores: Tensor, dim: int, taken: Tensor, *, settled: bool) -> Boundary:
    """Read a selection of one element of each row, whose value `taken` is."""
    tied = ((scores == taken) & _allowed(taken)).sum() - _allowed(taken).sum()
    return _boundary(scores, dim, 1, tied, settled=settled)


def _allowed(values: Tensor) -> Tensor:
    """Return where values are such as were not put there to rule an element out."""
    limits = torch.finfo(values.dtype)
    return (values > limits.min) & (values < limits.max)


def _boundary(scores: Tensor, dim: int, chosen: int, tied: Tensor, *, settled: bool) -> Boundary:
    size = scores.shape[dim]
    return Boundary(scores.numel() // size, size, chosen, tied, settled)


# torch documents that argmax, max and their opposites return the first of equal elements. For the others see the rows
# of `difftrace.determinism.hazards.choices`.
_READERS: Final[dict[str, Reader]] = {
    "topk": _of_topk,
    "sort": _of_sort,
    "argmax": _of_extreme,
    "argmin": _of_extreme,
    "max": _of_extreme,
    "min": _of_extreme,
    "kthvalue": _of_middle,
    "median": _of_middle,
    "nanmedian": _of_middle,
}
