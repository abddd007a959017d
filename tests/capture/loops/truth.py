"""What a loop decided, written down by the loop itself: what a recorder that knows nothing of it must find."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from loops.model import TinyDenoiser


class Event(NamedTuple):
    """One token put down: `new` where `old` was, at a step, in a row of the batch, at a canvas position.

    `old` may equal `new`: a model may predict the mask.
    """

    step: int
    row: int
    position: int
    old: int
    new: int


@dataclass
class Truth:
    """The first canvas and all decisions of one run of `model`.

    `forwards[s]` is how many forwards had been made when step s was decided.
    """

    model: TinyDenoiser
    initial: Tensor = field(default_factory=lambda: torch.zeros((0, 0), dtype=torch.long))
    events: list[Event] = field(default_factory=list)
    forwards: list[int] = field(default_factory=list)

    def begin(self, canvas: Tensor) -> None:
        """Take the first canvas [B, L]."""
        self.initial = canvas.clone()

    def grow(self, block: Tensor) -> None:
        """Take what [B, W] a canvas that starts without its last blocks is lengthened by."""
        self.initial = torch.cat((self.initial, block), dim=1)

    def step(self, canvas: Tensor, chosen: Tensor, tokens: Tensor, start: int = 0) -> None:
        """Take a step before it is written: `tokens` go where `chosen`, both [B, W] from column `start` of `canvas`."""
        self.forwards.append(self.model.calls)
        self.also(canvas, chosen, tokens, start)

    def also(self, canvas: Tensor, chosen: Tensor, tokens: Tensor, start: int = 0) -> None:
        """Take more of the last step: what is written without being decided from logits."""
        for row, column in chosen.nonzero().tolist():
            old, new = int(canvas[row, start + column]), int(tokens[row, column])
            self.events.append(Event(self.num_steps - 1, row, start + column, old, new))

    @property
    def num_steps(self) -> int:
        """Steps, those that put nothing down included."""
        return len(self.forwards)

    @property
    def changes(self) -> list[Event]:
        """The events that changed the canvas: all that can be seen by looking at it."""
        return [event for event in self.events if event.old != event.new]

    @property
    def final(self) -> Tensor:
        """The last canvas [B, L], by replaying the events; each must find the token it says it replaced."""
        canvas = self.initial.clone()
        for event in self.events:
            assert canvas[event.row, event.position] == event.old, event
            canvas[event.row, event.position] = event.new
        return canvas

    def counts(self, row: int = 0) -> list[int]:
        """How many tokens each step put down in one row."""
        counts = [0] * self.num_steps
        for event in self.events:
            counts[event.step] += event.row == row
        return counts
