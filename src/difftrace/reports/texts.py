"""Two texts shown one below the other around their first difference."""

from __future__ import annotations

from itertools import count
from typing import Final

from difftrace.core.text import printable
from difftrace.reports.columns import character_width, clip, pad, width

_LEAD: Final = 30


def equal_text(label: str, text: str, columns: int) -> str:
    """Return one line with the start of `text`."""
    return f'{label} "{clip(printable(text[:columns]), columns - width(label) - 3)}"'


def text_difference(golden: str, observed: str, labels: tuple[str, str], columns: int) -> list[str]:
    """Return one line for each of two different texts and a caret line below, at most `columns` wide."""
    start = max(0, _first_difference(golden, observed) - _LEAD)
    cut = "…" if start else ""
    # Escaping lengthens a text, so more of it than `columns` characters can never be shown.
    one, other = (cut + printable(text[start : start + columns]) for text in (golden, observed))
    indent = max(map(width, labels)) + 1
    room = columns - indent - 2
    lines = [f'{pad(label, indent)}"{clip(text, room)}"' for label, text in zip(labels, (one, other), strict=True)]
    at = _first_difference(one, other)
    # A combining mark is seen on the character it belongs to.
    while at and any(character_width(text[at]) == 0 for text in (one, other) if at < len(text)):
        at -= 1
    return [*lines, " " * (indent + 1 + min(width(one[:at]), room)) + "^"]


def _first_difference(one: str, other: str) -> int:
    shared = min(len(one), len(other))
    return next((index for index in count() if index >= shared or one[index] != other[index]), shared)
