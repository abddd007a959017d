"""One operation as torch dispatches it: its name, its arguments, and what the table of hazards says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import torch
from torch._ops import OpOverload

from difftrace.determinism.hazards import hazards_of
from difftrace.determinism.hazards.conditions import Call
from difftrace.determinism.hazards.randomness import BITWISE_TAG, REPEATED_THOUGH_TAGGED, SEEDED_TAG
from difftrace.determinism.hazards.row import Hazard

# Operations of other namespaces belong to other libraries, and the table knows nothing about them.
_NAMESPACES_OF_TORCH: Final = frozenset(
    (
        "_c10d_functional",
        "_c10d_functional_autograd",
        "_dtensor",
        "aten",
        "c10d",
        "mkldnn",
        "onednn",
        "prim",
        "prims",
        "profiler",
        "quantized",
        "sparse",
        "symm_mem",
    )
)


def operation_name(func: Any) -> str:
    """Return an operation's name without overload, and without namespace where that is ATen's."""
    name: str = func.name().partition(".")[0]
    return name.removeprefix("aten::")


@lru_cache(maxsize=1024)
def rows_of(func: Any) -> tuple[Hazard, ...] | None:
    """Return the rows that concern an operation; None if nothing is known about it."""
    name = operation_name(func)
    rows = hazards_of(name)
    if rows is not None:
        return rows
    tags = () if name in REPEATED_THOUGH_TAGGED else getattr(func, "tags", ())
    if torch.Tag.nondeterministic_seeded in tags:
        return (SEEDED_TAG,)
    # Newer versions of torch only.
    if getattr(torch.Tag, "nondeterministic_bitwise", None) in tags:
        return (BITWISE_TAG,)
    return () if getattr(func, "namespace", None) in _NAMESPACES_OF_TORCH else None


def call_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
    """Return the arguments of a call by name, with the defaults of those left out."""
    if not isinstance(func, OpOverload):
        return Call(dict(kwargs))
    bound = dict(kwargs)
    for position, argument in enumerate(func._schema.arguments):
        if position < len(args):
            bound[argument.name] = args[position]
        elif argument.has_default_value():
            bound.setdefault(argument.name, argument.default_value)
    return Call(bound)
