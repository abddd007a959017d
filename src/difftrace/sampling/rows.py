"""Rows of logits picked out of many steps and worked through a bounded piece at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

# Values copied at once. On a CPU intermediate results then stay in its caches; on accelerators one of float64 takes
# 128 MiB. Nothing computed from a row depends on it.
_PIECE_CPU: Final = 2**17
_PIECE: Final = 2**24


@dataclass(frozen=True)
class Places:
    """Some of the B·W places of every step.

    `of_step[s]` are ascending, `counts[s]` many; `flat` are all of them as places of [S·B·W].
    """

    of_step: Sequence[Tensor]
    counts: Sequence[int]
    flat: Tensor


def places_of(masks: Tensor, counts: Sequence[int]) -> Places:
    """Return where `masks` (bool [S, B, W]) are set; `counts` says how many there are in each step.

    A count above that adds places that are not set; nothing waits for the device.
    """
    sheets = masks.flatten(1)
    order = sheets.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    order += torch.arange(0, sheets.numel(), sheets.shape[1], device=sheets.device).unsqueeze(-1)
    flat = torch.cat([row[:count] for row, count in zip(order, counts, strict=True)])
    return Places(torch.split(flat % sheets.shape[1], list(counts)), counts, flat)


def for_rows(
    compute: Callable[..., tuple[Tensor, ...]], where: Places, *tensors: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Return what `compute` makes of the rows at `where.flat`, in its order, whatever is done at a time.

    Each of `tensors` gives one [B, W, V] for every step; `compute` takes contiguous copies [n, V] of each one's rows
    and returns tensors [n, ...].
    """
    done = [compute(*rows) for rows in zip(*(_pieces(where, each) for each in tensors), strict=True)]
    return tuple(torch.cat(column) for column in zip(*done, strict=True))


def _pieces(where: Places, tensors: Sequence[Tensor]) -> Iterator[Tensor]:
    width = tensors[0].shape[-1]
    most = max(1, (_PIECE_CPU if tensors[0].device.type == "cpu" else _PIECE) // width)
    waiting: list[tuple[Tensor, Tensor, int]] = []
    size = 0
    for tensor, places, count in zip(tensors, where.of_step, where.counts, strict=True):
        rows = tensor.flatten(0, 1)
        for start in range(0, count, most):
            length = min(most, count - start)
            if size + length > most:
                yield _copied(waiting, size)
                waiting, size = [], 0
            waiting.append((rows, places[start : start + length] if count > most else places, length))
            size += length
    yield _copied(waiting, size) if waiting else tensors[0].new_empty((0, width))


def _copied(waiting: Sequence[tuple[Tensor, Tensor, int]], size: int) -> Tensor:
    """Return the rows at some places of some tensors [B·W, V], together [size, V]."""
    if len(waiting) == 1:
        return waiting[0][0].index_select(0, waiting[0][1])
    copied = waiting[0][0].new_empty((size, waiting[0][0].shape[1]))
    parts = torch.split(copied, [length for _, _, length in waiting])
    for (rows, places, _), part in zip(waiting, parts, strict=True):
        torch.index_select(rows, 0, places, out=part)
    return copied
