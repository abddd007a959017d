"""Prompts of different lengths as one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def left_pad(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor | None]:
    """Return token ids [B, P], shorter rows filled up on the left with `pad`, and their attention mask [B, P].

    The mask is None where all rows are equally long, so that nothing is hidden.
    """
    width = max(len(row) for row in rows)
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], dtype=torch.long)
    if all(len(row) == width for row in rows):
        return ids.reshape(len(rows), width), None
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], dtype=torch.long)
    return ids, mask
