"""Digests and sketches of many tensors, taken where they lie and brought to the host together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from difftrace.core.module_trace import TensorRecord
from difftrace.determinism.block_sums import block_sums
from difftrace.determinism.digest import digest_of_sums, without_content
from difftrace.determinism.sketch import sketch

# Elements cast at a time, so that casting a large parameter needs no second copy of it; whole blocks of its sums.
_PIECE: Final = 1 << 24


@dataclass(frozen=True, eq=False)
class Reduced:
    """A tensor's sums and sketch, still on its device; None where it has no content, or is not of floating point."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    sums: Tensor | None
    sketch: Tensor | None


def reduce_tensor(tensor: Tensor) -> Reduced:
    """Reduce a tensor as it is now: what is written into it later does not matter."""
    shape = tuple(tensor.shape)
    if without_content(tensor) is not None:
        return Reduced(tensor.dtype, shape, None, None)
    return Reduced(tensor.dtype, shape, block_sums(tensor), sketch(tensor) if tensor.dtype.is_floating_point else None)


def reduce_cast(tensor: Tensor, dtype: torch.dtype) -> Reduced:
    """Reduce what `tensor`, which has content, would be in `dtype`, without its sketch."""
    with torch.no_grad():
        parts = [block_sums(part.to(dtype)) for part in torch.split(tensor.detach().reshape(-1), _PIECE)]
    return Reduced(dtype, tuple(tensor.shape), torch.cat(parts), None)


def collect(reduced: list[Reduced]) -> list[TensorRecord]:
    """Return the records of all tensors; waits for each device once."""
    sums = _to_host([one.sums for one in reduced])
    sketches = _to_host([one.sketch for one in reduced])
    return [_record(*one) for one in zip(reduced, sums, sketches, strict=True)]


def _record(reduced: Reduced, sums: Tensor | None, sketched: Tensor | None) -> TensorRecord:
    numbers = None if sketched is None else sketched.tolist()
    return TensorRecord(
        dtype=str(reduced.dtype).removeprefix("torch."),
        shape=reduced.shape,
        digest=None if sums is None else digest_of_sums(reduced.dtype, reduced.shape, sums.numpy()),
        norm=None if numbers is None else math.sqrt(numbers[-2]),
        non_finite=0 if numbers is None else int(numbers[-1]),
        sketch=None if numbers is None else tuple(numbers[:-2]),
    )


def _to_host(tensors: list[Tensor | None]) -> list[Tensor | None]:
    """Return copies on the host, with one transfer for each device."""
    found: list[Tensor | None] = [None] * len(tensors)
    for device in {tensor.device for tensor in tensors if tensor is not None}:
        there = [(index, one) for index, one in enumerate(tensors) if one is not None and one.device == device]
        host = torch.cat([one.reshape(-1) for _, one in there]).cpu()
        parts = torch.split(host, [one.numel() for _, one in there])
        for (index, one), part in zip(there, parts, strict=True):
            found[index] = part.view(one.shape)
    return found
