"""Arrays kept as they are at one moment, on whatever device, and brought to the host together.

Tensors are known by their methods alone, so that none of their libraries is imported here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from difftrace.core.errors import EngineError

Array = npt.NDArray[Any]


def keep(name: str, values: Any) -> Any:
    """Return a copy of `values`, [N] or [1, N], of one dimension, which later changes of them do not reach.

    A tensor's copy stays on its device, where it is queued and not waited for.

    Raises:
        EngineError: they have no such shape; `name` is what the message calls them.
    """
    try:
        detach = getattr(values, "detach", None)
        given = detach().clone() if callable(detach) else np.array(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise EngineError(f"{name} cannot be kept: {error}") from None
    shape = tuple(given.shape)
    if len(shape) == 1:
        return given
    if len(shape) == 2 and shape[0] == 1:
        return given[0]
    raise EngineError(
        f"{name} must have one dimension, not the shape {list(shape)}; capture each sequence of a batch by itself"
    )


def on_host(values: Any) -> Array:
    """Return one array or tensor as a numpy array."""
    to_cpu = getattr(values, "cpu", None)
    return np.asarray(to_cpu() if callable(to_cpu) else values)


def joined_on_host(parts: list[Any]) -> Array:
    """Return the arrays or tensors `parts`, one after the other; tensors of one device cross to the host at once."""
    first = parts[0] if parts else np.zeros(0, dtype=np.int32)
    kinds = {(type(part), part.dtype, getattr(part, "device", None)) for part in parts}
    new_empty = getattr(first, "new_empty", None)
    if not callable(new_empty) or len(kinds) > 1 or str(getattr(first, "device", "cpu")) == "cpu":
        # An empty part may have any dtype, as that of an empty list has.
        filled = [part for part in map(on_host, parts) if part.size]
        return np.concatenate(filled) if filled else np.zeros(0, dtype=np.int32)
    joined = new_empty(sum(part.shape[0] for part in parts))
    start = 0
    for part in parts:
        joined[start : start + part.shape[0]] = part
        start += part.shape[0]
    return on_host(joined)
