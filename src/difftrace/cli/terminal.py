"""Where a command's text goes: its width, whether it may be coloured, whether it is paged."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

import click

from difftrace.reports.columns import LINE
from difftrace.reports.styles import Paint, coloured, plain

_NARROWEST = 40


def columns() -> int:
    """Return the columns of a line: the terminal's, else `LINE`; COLUMNS overrides both."""
    return max(_NARROWEST, shutil.get_terminal_size((LINE, 24)).columns)


def paint() -> Paint:
    """Return what colours a text: nothing, unless this is a terminal and NO_COLOR is unset or empty (no-color.org)."""
    dumb = os.environ.get("TERM") == "dumb"
    return plain if dumb or os.environ.get("NO_COLOR") or not sys.stdout.isatty() else coloured


def print_lines(lines: Sequence[str]) -> None:
    """Print lines; on a terminal that they do not fit on, through the user's pager."""
    text = "\n".join(lines)
    if sys.stdout.isatty() and len(lines) >= shutil.get_terminal_size((LINE, 24)).lines:
        click.echo_via_pager(text, color=True)
    else:
        click.echo(text)
