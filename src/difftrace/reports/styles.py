"""What is emphasised in a text: colours on a terminal, nothing elsewhere. No meaning rests on them alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

Style = Literal["title", "new", "dim"]
Paint = Callable[[str, Style], str]

_CODES: Final[dict[Style, str]] = {"title": "1", "new": "1;32", "dim": "2"}


def plain(text: str, _style: Style) -> str:
    """Return `text` as it is."""
    return text


def coloured(text: str, style: Style) -> str:
    """Return `text` in ANSI colours; `text` itself must be printable."""
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m"
