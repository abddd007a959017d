"""Colours for the failure texts, on a terminal only.

The texts are made plain, in workers as well as here, so that JUnit files and logs stay plain; they are coloured right
before pytest prints them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import pytest

_PREFIX: Final = "difftrace: "
_CARET: Final = re.compile(r" *\^+")
_COMMAND: Final = "  pytest --difftrace-record"


def colour_failures(terminalreporter: Any) -> None:
    """Colour the lines of failed checks where `terminalreporter` writes colours (--color, NO_COLOR, a terminal)."""
    # Before 8.3 pytest takes such lines for Python source and colours them as that.
    if not terminalreporter.hasmarkup or pytest.version_tuple < (8, 3):
        return
    writer = terminalreporter.config.get_terminal_writer()
    for category in ("failed", "error"):
        for report in terminalreporter.stats.get(category, ()):
            for lines in _texts(report):
                lines[:] = [_coloured(line, writer) for text in lines for line in text.split("\n")]


def _texts(report: Any) -> Iterable[list[str]]:
    """Return the lines that pytest prints for `report`, as lists to change, if they are those of a failed check."""
    traceback = getattr(report.longrepr, "reprtraceback", None)
    for entry in getattr(traceback, "reprentries", ()):
        if entry.lines and entry.lines[0].startswith(_PREFIX):
            yield entry.lines


def _coloured(line: str, writer: Any) -> str:
    if line.startswith(_PREFIX) or _CARET.fullmatch(line):
        style = {"red": True, "bold": True}
    elif line.startswith(_COMMAND):
        style = {"bold": True}
    else:
        return line
    coloured: str = writer.markup(line, **style)
    return coloured
