"""Text measured and cut in terminal columns, where one character may take none, one or two."""

from __future__ import annotations

import unicodedata
from typing import Final

from difftrace.core.text import printable

LINE: Final = 100
"""Columns of a line."""

_NO_WIDTH: Final = frozenset({"Mn", "Me", "Cf"})


def character_width(character: str) -> int:
    """Return the columns `character` takes: 2 if East-Asian wide, 0 if it combines with the one before, else 1."""
    if unicodedata.category(character) in _NO_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def width(text: str) -> int:
    """Return the columns that `text` takes on one line."""
    return len(text) if text.isascii() else sum(map(character_width, text))


def clip(text: str, columns: int) -> str:
    """Return `text` if it fits into `columns`, else as much of its start as fits before an ellipsis."""
    # Every base character takes a column, so this much text cannot fit unless it is mostly combining characters.
    text = text[: 4 * columns + 4]
    if width(text) <= columns:
        return text
    used = 0
    for index, character in enumerate(text):
        used += character_width(character)
        if used > columns - 1:
            return f"{text[:index]}…"
    return text


def pad(text: str, columns: int) -> str:
    """Return `text` filled with blanks on its right up to `columns`."""
    return text + " " * (columns - width(text))


def wrapped(text: str, indent: str = "", columns: int = LINE) -> list[str]:
    """Return `text`, made printable, in lines of at most `columns`, cut between words; all but the first are
    indented two more than `indent`."""
    lines = [indent]
    for word in printable(text).split():
        room = columns - width(lines[-1]) - 1
        if lines[-1].strip() and width(word) > room:
            lines.append(f"{indent}  ")
        gap = " " if lines[-1].strip() else ""
        lines[-1] = clip(f"{lines[-1]}{gap}{word}", columns)
    return lines
