"""Canvases put together from the blocks that an engine decodes one after the other, each seen by itself."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from difftrace.capture.tape import Tape


@dataclass
class Blocks:
    """Takes the steps of each block, [B, W] before and after; the canvas is all blocks, masks where none was yet."""

    _blocks: list[list[tuple[Tensor, Tensor]]] = field(default_factory=list)

    def begin(self) -> None:
        """Begin the next block."""
        self._blocks.append([])

    def step(self, before: Tensor, after: Tensor) -> None:
        """Take a step of the current block; tensors that nobody writes to any more."""
        if not self._blocks:
            self.begin()
        self._blocks[-1].append((before, after))

    def tell(self, tape: Tape, mask_id: int) -> None:
        """Tell `tape` every step as one of the whole canvas."""
        blocks = [steps for steps in self._blocks if steps]
        lasts = [steps[-1][1] for steps in blocks]
        for index, steps in enumerate(blocks):
            masks = [torch.full_like(block, mask_id) for block in lasts[index + 1 :]]
            for before, after in steps:
                one, other = (torch.cat([*lasts[:index], block, *masks], dim=1) for block in (before, after))
                tape.add_step(one, other, None)
