"""How far a command is shows on a terminal, is out of the way of results, and shows nowhere else."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import pytest

from difftrace.cli.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


Run = Callable[[io.StringIO, int], str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return what recording so many writes to a stream, one line of result each."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")

    def written(stream: io.StringIO, total: int) -> str:
        monkeypatch.setattr(sys, "stderr", stream)
        with Progress(total, "recording") as progress:
            for _ in range(total):
                with progress.aside():
                    stream.write("result\n")
                progress.advance()
        return stream.getvalue()

    return written


def test_a_terminal_sees_the_count_and_keeps_only_the_results(run: Run) -> None:
    drawn = run(Terminal(), 2)
    assert "recording  [------------------------]  0/2" in drawn
    assert "recording  [############------------]  1/2  0:00:00 left" in drawn
    assert "recording  [########################]  2/2" in drawn
    # What a terminal shows in the end: a line that is erased leaves nothing.
    assert [line.rpartition("\r\x1b[K")[2] for line in drawn.split("\n")] == ["result", "result", ""]


def test_a_narrow_terminal_never_wraps_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    lines = run(Terminal(), 2).replace("\r\x1b[K", "\n").split("\n")
    assert max(map(len, lines)) == 19


def test_one_alone_and_a_dumb_terminal_get_no_bar(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(Terminal(), 1) == "result\n"
    monkeypatch.setenv("TERM", "dumb")
    assert run(Terminal(), 2) == "result\n" * 2


def test_a_file_gets_no_bar(run: Run) -> None:
    assert run(io.StringIO(), 3) == "result\n" * 3
