"""What a loop drew at random and what it selected, as values."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Draw:
    """One draw of random numbers.

    Attributes:
        step: 0-based step; -1 before the first.
        operation: its public name, `rand_like` or `dropout`.
        shape: of what was drawn.
        dtype: likewise, "float64".
        device: kind of device, "cpu" or "cuda".
        generator: torch's `global` one, or one that the caller `given`.
        place: file, line and function that drew, "generate.py:12 in add_noise"; empty if unknown.
        in_model: whether a forward drew, not the loop around it.
    """

    step: int
    operation: str
    shape: tuple[int, ...]
    dtype: str
    device: str
    generator: Literal["global", "given"]
    place: str
    in_model: bool


@dataclass(frozen=True)
class Selection:
    """One selection among floating-point numbers, over one or more rows.

    Attributes:
        step: 0-based step; -1 before the first.
        operation: `topk`, `sort`, `argmax`, ….
        rows: rows that were selected from, each for itself.
        size: elements of a row.
        chosen: how many of them were taken; for a sort, all.
        tied: elements, over all rows, that equal the last one taken and were not; for a sort, that equal their
            neighbour in the order. What was set to minus infinity, or the lowest number, is ruled out and never tied.
        settled: whether torch documents which of equal elements is taken (the first).
        dtype: of the numbers, "bfloat16".
        device: kind of device, "cpu" or "cuda".
        place: file, line and function that selected; empty if unknown.
        in_model: whether a forward selected (a router of experts), not the loop around it.
    """

    step: int
    operation: str
    rows: int
    size: int
    chosen: int
    tied: int
    settled: bool
    dtype: str
    device: str
    place: str
    in_model: bool


@dataclass(frozen=True)
class Audit:
    """Everything a loop drew and selected, in order.

    `host` names generators of the process, `random.random` or `numpy.random`, that were drawn from, too.
    """

    draws: tuple[Draw, ...] = ()
    selections: tuple[Selection, ...] = ()
    host: tuple[str, ...] = ()

    def at_steps(self, steps: Sequence[int]) -> Audit:
        """Return the same where what was counted as steps are calls of the model, of which `steps` [S] made the steps.

        What happened between two of those belongs to the first of them.
        """
        return self._renumbered(lambda one: bisect_right(steps, one.step) - 1)

    def at_told_steps(self) -> Audit:
        """Return the same where steps that were told were counted instead, the one under way included.

        No forward was answered in between, so that what a model did was counted for the step after its own.
        """
        return self._renumbered(lambda one: one.step - one.in_model)

    def _renumbered(self, step_of: Callable[[Draw | Selection], int]) -> Audit:
        return replace(
            self,
            draws=tuple(replace(draw, step=step_of(draw)) for draw in self.draws),
            selections=tuple(replace(selection, step=step_of(selection)) for selection in self.selections),
        )
