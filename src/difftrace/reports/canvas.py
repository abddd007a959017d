"""Rows of tokens, one cell for each position, as many as fit around the position that matters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from difftrace.core.recording import Baseline
from difftrace.core.text import printable
from difftrace.core.trajectory import Trajectory
from difftrace.reports.columns import character_width, clip, pad, width

MASK: Final = "░"
NOTHING: Final = "·"
_WIDEST_CELL: Final = 14
_GAP: Final = "  "
_BASE: Final = "◌"


@dataclass(frozen=True)
class Row:
    """A labelled row; `cell(position)` is the printable text at one position."""

    label: str
    cell: Callable[[int], str]


def token_text(token: int, pieces: Mapping[int, str], mask: int | None = None) -> str:
    """Return how `token` is shown in a cell: the mask as a block, blanks as ␣, an id without a piece as its number."""
    if token == mask:
        return MASK
    piece = pieces.get(token)
    if piece is None:
        return str(token)
    text = printable(piece).replace(" ", "␣") or "''"
    # A mark that combines would sit on whatever stands before the cell.
    return text if character_width(text[0]) else f"{_BASE}{text}"


def mask_token(baseline: Baseline, trajectory: Trajectory) -> int | None:
    """Return the mask's id: the model's, else the commonest token of the first canvas where something is committed."""
    if baseline.model is not None:
        return baseline.model.mask_token_id
    if trajectory.num_events == 0:
        return None
    tokens, counts = np.unique(trajectory.initial[trajectory.positions], return_counts=True)
    return int(tokens[counts.argmax()])


def table(rows: Sequence[Row], length: int, marked: int, columns: int) -> list[str]:
    """Return lines showing `rows` around position `marked` of `length`, with a caret line below it.

    The positions shown are those that fit into `columns`, with `marked` in their middle where there are enough.
    """
    rows = [Row("position", str), *rows]
    indent = max(width(row.label) for row in rows)
    room = columns - indent
    cells: dict[int, list[str]] = {}
    for position in _outwards(marked, length):
        column = [clip(row.cell(position), _WIDEST_CELL) for row in rows]
        room -= len(_GAP) + max(map(width, column))
        if room < 0:
            break
        cells[position] = column
    widths = {position: max(map(width, column)) for position, column in cells.items()}
    shown = sorted(cells)
    lines = [
        (pad(row.label, indent) + "".join(_GAP + pad(cells[p][index], widths[p]) for p in shown)).rstrip()
        for index, row in enumerate(rows)
    ]
    before = indent + sum(len(_GAP) + widths[p] for p in shown if p < marked) + len(_GAP)
    return [*lines, " " * before + "^" * widths[marked]]


def _outwards(centre: int, length: int) -> list[int]:
    """Return positions from `centre` outwards, left and right in turn; more than ever fit on a line."""
    reach = range(1, 60)
    both = [p for distance in reach for p in (centre - distance, centre + distance) if 0 <= p < length]
    return [centre, *both]
