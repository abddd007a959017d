"""The canvas over steps: a row for every step, a column for every position, in windows that fit a width."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Final, NamedTuple

from difftrace.core.recording import Baseline
from difftrace.core.trajectory import Ints, Trajectory
from difftrace.reports.canvas import MASK, NOTHING, mask_token, token_text
from difftrace.reports.columns import clip, pad, width
from difftrace.reports.styles import Paint, plain

LEGEND: Final = f"[x] committed at this step, {{x}} committed again, {MASK} mask, {NOTHING} padding"

_POSITION: Final = "position"
_BEFORE: Final = "before"
_ELIDED: Final = "⋮"
# Few tokens are longer, and special tokens must not push everything else off the line.
_WIDEST: Final = 10
# A blank or a bracket on either side of a cell.
_SLOTS: Final = 2


class Span(NamedTuple):
    """The steps from `first` up to, not including, `last`."""

    first: int
    last: int


class _Commit(NamedTuple):
    step: int
    position: int
    text: str
    again: bool


@dataclass(frozen=True)
class _Sheet:
    """All that is shown of one sequence: for each position its first text, its commits, and its width."""

    span: Span
    before: list[str]
    commits: dict[int, list[_Commit]]
    widths: list[int]


def canvas_lines(baseline: Baseline, sequence: int, span: Span, columns: int, paint: Paint = plain) -> Iterator[str]:
    """Yield the canvas before `span` and after each of its steps, no line wider than `columns` (at least 40).

    Positions that do not fit beside each other follow in further windows. Left out, and said to be, are positions
    where no step of the span commits anything, if they fill a window, and within a window steps that do not change it.
    """
    sheet = _sheet(baseline, baseline.sequences[sequence].trajectory, span)
    indent = max(len(_POSITION), len(str(span.last)))
    still: list[int] = []
    for window in _windows(sheet.widths, columns - indent):
        if sheet.commits.keys().isdisjoint(window):
            still += window
            continue
        yield from _unchanged(sheet, still, columns, paint)
        still = []
        yield from _window(sheet, window, indent, columns, paint)
        yield ""
    yield from _unchanged(sheet, still, columns, paint)


def _sheet(baseline: Baseline, trajectory: Trajectory, span: Span) -> _Sheet:
    mask = mask_token(baseline, trajectory)
    texts: dict[int, str] = {}

    def text(token: int) -> str:
        if token not in texts:
            texts[token] = clip(token_text(token, baseline.pieces, mask), _WIDEST)
        return texts[token]

    before = [
        NOTHING if position < trajectory.padding else text(token)
        for position, token in enumerate(trajectory.canvas(span.first).tolist())
    ]
    first, last = trajectory.steps.searchsorted([span.first, span.last]).tolist()
    seen = set(trajectory.positions[:first].tolist())
    widths = [max(width(cell), len(str(position))) for position, cell in enumerate(before)]
    commits: dict[int, list[_Commit]] = {}
    for step, position, token in _events(trajectory, first, last):
        commit = _Commit(step, position, text(token), position in seen)
        commits.setdefault(position, []).append(commit)
        widths[position] = max(widths[position], width(commit.text))
        seen.add(position)
    return _Sheet(span, before, commits, widths)


def _events(trajectory: Trajectory, first: int, last: int) -> Iterator[tuple[int, int, int]]:
    columns: tuple[Ints, ...] = (trajectory.steps, trajectory.positions, trajectory.tokens)
    steps, positions, tokens = (column[first:last].tolist() for column in columns)
    return zip(steps, positions, tokens, strict=True)


def _windows(widths: list[int], room: int) -> Iterator[range]:
    start, used = 0, 0
    for position, cell in enumerate(widths):
        if position > start and used + cell + _SLOTS > room:
            yield range(start, position)
            start, used = position, 0
        used += cell + _SLOTS
    yield range(start, len(widths))


def _unchanged(sheet: _Sheet, positions: list[int], columns: int, paint: Paint) -> Iterator[str]:
    if positions:
        cells = " ".join(sheet.before[position] for position in positions[:columns])
        yield paint(clip(f"positions {positions[0]}-{positions[-1]}, no commit here: {cells}", columns), "dim")
        yield ""


def _window(sheet: _Sheet, window: range, indent: int, columns: int, paint: Paint) -> Iterator[str]:
    cells = {position: sheet.before[position] for position in window}
    yield paint(_row(_POSITION, indent, window, {p: str(p) for p in window}, {}, sheet.widths, plain), "dim")
    yield _row(_BEFORE, indent, window, cells, {}, sheet.widths, paint)
    own = sorted(commit for position in window for commit in sheet.commits.get(position, ()))
    following = sheet.span.first
    for step, commits in groupby(own, key=lambda commit: commit.step):
        yield from _elision(following, step, indent, columns, paint)
        marks = {}
        for commit in commits:
            cells[commit.position] = commit.text
            marks[commit.position] = "{}" if commit.again else "[]"
        yield _row(str(step), indent, window, cells, marks, sheet.widths, paint)
        following = step + 1
    yield from _elision(following, sheet.span.last, indent, columns, paint)


def _elision(first: int, last: int, indent: int, columns: int, paint: Paint) -> Iterator[str]:
    """Yield a line for the steps from `first` to `last` - 1, if there are any."""
    if first < last:
        which = f"{first} commits" if last - first == 1 else f"{first}-{last - 1} commit"
        yield paint(clip(f"{pad(_ELIDED, indent)} {which} nothing here", columns), "dim")


def _row(
    label: str,
    indent: int,
    window: range,
    cells: dict[int, str],
    marks: dict[int, str],
    widths: list[int],
    paint: Paint,
) -> str:
    parts = [pad(label, indent)]
    for position in window:
        cell, mark = cells[position], marks.get(position)
        fill = " " * (widths[position] - width(cell))
        if mark is not None:
            parts.append(paint(f"{mark[0]}{cell}{mark[1]}", "new") + fill)
        elif cell in (MASK, NOTHING):
            parts.append(f" {paint(cell, 'dim')} {fill}")
        else:
            parts.append(f" {cell} {fill}")
    return "".join(parts).rstrip(" ")
