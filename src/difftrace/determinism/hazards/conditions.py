"""When an operation that can vary from run to run does: read off one call's arguments.

Nothing here imports torch; tensors are asked through their own methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Call:
    """One call of an operation: its arguments by the names of its schema, defaults filled in."""

    arguments: Mapping[str, Any]

    def get(self, name: str, default: Any = None) -> Any:
        """Return an argument, or `default` if the operation has none of that name."""
        return self.arguments.get(name, default)


Condition = Callable[[Call], bool]


def from_the_global_generator(call: Call) -> bool:
    """Whether the numbers come from torch's global generator."""
    return call.get("generator") is None


def from_the_callers_generator(call: Call) -> bool:
    """Whether the caller gave a generator of its own."""
    return call.get("generator") is not None


def training(call: Call) -> bool:
    """Whether an operation that does nothing in evaluation is told to train; not saying so means training."""
    return all(call.get(name, True) is not False for name in ("train", "training"))


def drops_out(call: Call) -> bool:
    """Whether a fused operation drops elements out on the way."""
    return training(call) and any((call.get(name) or 0) > 0 for name in ("dropout_p", "dropout"))


def unstable(call: Call) -> bool:
    """Whether a sort leaves the order of equal elements open."""
    return call.get("stable") is not True


def with_indices(call: Call) -> bool:
    """Whether a median is taken along a dimension, which also returns where it was found."""
    return "dim" in call.arguments


def weighted(call: Call) -> bool:
    """Whether a count adds up weights instead of ones."""
    return call.get("weights") is not None


def reducing_loss(call: Call) -> bool:
    """Whether a loss is summed or averaged over its elements."""
    return bool(call.get("reduction"))


def inexact(call: Call) -> bool:
    """Whether the result is floating point or complex; sums of integers do not depend on their order."""
    dtype = call.get("dtype") or call.arguments["self"].dtype
    return bool(dtype.is_floating_point or dtype.is_complex)


def one_inexact_row(call: Call) -> bool:
    """Whether a floating-point scan runs over a single row, which CUDA leaves to CUB."""
    tensor = call.arguments["self"]
    return inexact(call) and tensor.dim() > 0 and tensor.numel() == tensor.shape[call.arguments["dim"]]


def sparse(call: Call) -> bool:
    """Whether the left factor of a product is sparse."""
    return bool(call.arguments["self"].is_sparse)


def accumulates(call: Call) -> bool:
    """Whether an indexed write adds floating-point values to what is there."""
    return bool(call.get("accumulate")) and inexact(call)


def sums(call: Call) -> bool:
    """Whether a scatter adds floating-point values up, or averages them."""
    return call.get("src") is not None and call.get("reduce") in ("add", "sum", "mean") and inexact(call)


def multiplies(call: Call) -> bool:
    """Whether a scatter multiplies floating-point values."""
    return call.get("src") is not None and call.get("reduce") in ("multiply", "prod") and inexact(call)


def reduces_inexactly(call: Call) -> bool:
    """Whether an indexed reduction depends on the order of its elements, as extremes do not."""
    return call.get("reduce") in ("prod", "mean") and inexact(call)


def copies_twice(call: Call) -> bool:
    """Whether two rows are copied to one place."""
    return _repeats(call.arguments["index"])


def puts_twice(call: Call) -> bool:
    """Whether two values are put in one place, the later one winning."""
    index: Tensor = call.arguments["index"]
    return not call.get("accumulate") and _repeats(index.remainder(max(1, call.arguments["self"].numel())))


def scatters_twice(call: Call) -> bool:
    """Whether two different sources are scattered to one place, the later one winning."""
    index: Tensor = call.arguments["index"]
    if call.get("src") is None or call.get("reduce") is not None or index.dim() == 0:
        return False
    if index.is_meta:
        return True
    dim = call.arguments["dim"]
    return bool((index.sort(dim=dim).values.diff(dim=dim) == 0).any())


def assigns_twice(call: Call) -> bool:
    """Whether `x[indices] = values` names a place twice and has more than one value to put there."""
    target, values = call.arguments["self"], call.arguments["values"]
    if call.get("accumulate") or values.numel() == 1:
        return False
    places: Tensor | None = None
    dim = 0
    for index in call.arguments["indices"]:
        if index is None:
            dim += 1
            continue
        if index.is_meta:
            return True
        # A mask stands for the places where it is set, and takes as many dimensions as it has.
        mask = str(index.dtype) in ("torch.bool", "torch.uint8")
        for column in index.nonzero().unbind(1) if mask else (index,):
            size = target.shape[dim]
            column = column.remainder(max(1, size))
            places = column if places is None else places * size + column
            dim += 1
    return places is not None and _repeats(places)


def _repeats(index: Tensor) -> bool:
    """Whether a number occurs twice; on the meta device, where nothing can be read, it may."""
    if index.is_meta:
        return True
    in_order = index.flatten().sort().values
    return bool((in_order[1:] == in_order[:-1]).any())
