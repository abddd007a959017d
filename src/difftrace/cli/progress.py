"""A line on standard error that says how far a command is, where that is a terminal; nothing elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from difftrace.reports.columns import LINE, clip

_BAR: Final = 24
_CLEAR: Final = "\r\x1b[K"


class Progress:
    """How many of `total` are done, and about how long the rest takes; `doing` is a word such as "recording"."""

    def __init__(self, total: int, doing: str) -> None:
        self._total, self._doing = total, doing
        self._done, self._start = 0, time.monotonic()
        # One is over before it could be told, or shows the progress of its own steps.
        self._shown = total > 1 and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def __enter__(self) -> Progress:
        self._draw()
        return self

    def __exit__(self, *_: object) -> None:
        self._erase()

    def advance(self) -> None:
        """Count one more as done."""
        self._done += 1
        self._draw()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the line away while something else is printed."""
        self._erase()
        yield
        self._draw()

    def _draw(self) -> None:
        if not self._shown:
            return
        filled = _BAR * self._done // self._total
        line = f"{self._doing}  [{'#' * filled}{'-' * (_BAR - filled)}]  {self._done}/{self._total}{self._left()}"
        columns = shutil.get_terminal_size((LINE, 24)).columns
        sys.stderr.write(f"{_CLEAR}{clip(line, columns - 1)}")
        sys.stderr.flush()

    def _erase(self) -> None:
        if self._shown:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()

    def _left(self) -> str:
        if self._done in (0, self._total):
            return ""
        seconds = round((time.monotonic() - self._start) / self._done * (self._total - self._done))
        return f"  {seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left"
