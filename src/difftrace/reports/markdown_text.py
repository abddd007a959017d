"""Texts from tests and models in Markdown: whatever they hold, they stay text."""

from __future__ import annotations

import re
from typing import Final

from difftrace.core.text import printable

_PUNCTUATION: Final = re.compile(r"[!-/:-@\[-`{-~]")
_FENCES: Final = re.compile(r"`+")


def escaped(text: str) -> str:
    """Return `text` with every character that Markdown or HTML could take for markup as an entity."""
    return _PUNCTUATION.sub(lambda found: f"&#{ord(found[0])};", text)


def code(text: str) -> str:
    """Return `text` as inline code, on one line."""
    return f"<code>{escaped(printable(text))}</code>"


def fenced(text: str) -> str:
    """Return `text` as a block that nothing in it can end."""
    longest = max(map(len, _FENCES.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
