"""Text from models and files, made safe to print: no control over the terminal, the reading order or the CI
log."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# Private-use and unassigned characters show as nothing or as anything; joiners are part of ordinary words and
# emoji.
_UNSAFE_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_JOINERS: Final = "\u200c\u200d"

# GitHub and Azure runners act on `##[command]` and `##vso[command]` anywhere in a line.
_RUNNER_COMMAND: Final = re.compile(r"#(?=#(?:vso)?\[)")


def printable(text: str) -> str:
    """Return `text` with what could act on a terminal or a log replaced by visible escapes, on one line.

    Control and ANSI characters, line breaks, bidirectional and other invisible format characters, lone
    surrogates, private-use and unassigned characters become `\\n`, `\\x1b`, `\\u202e` and the like. A leading
    `::`, which GitHub runners take for a command even after blanks, and the older `##[` lose their first
    character to an escape.
    """
    if not text.isprintable():
        text = "".join(_escape(character) for character in text)
    blanks = len(text) - len(text.lstrip())
    if text.startswith("::", blanks):
        text = f"{text[:blanks]}\\x3a{text[blanks + 1 :]}"
    return _RUNNER_COMMAND.sub(r"\\x23", text)


def _escape(character: str) -> str:
    if unicodedata.category(character) not in _UNSAFE_CATEGORIES or character in _JOINERS:
        return character
    return character.encode("unicode_escape").decode("ascii")
