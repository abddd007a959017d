"""What the runner of a job hears of: annotations, groups, outputs and the job's summary."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, TextIO

from difftrace.core.text import printable
from difftrace.reports.job_summary import room
from difftrace.reports.markdown_text import code
from difftrace.reports.workflow_commands import command

# GitHub shows ten of a level and step.
_MOST: Final = 9
_MOST_TESTS: Final = 50
_TITLE: Final = {"title": "DiffTrace"}


def annotate(
    level: Literal["error", "warning", "notice"], messages: Sequence[str], stream: TextIO | None = None
) -> None:
    """Print an annotation for each of `messages`, at most ten, to `stream`, None for standard output."""
    for message in messages[:_MOST]:
        print(command(level, _TITLE, printable(message)), file=stream, flush=True)
    if len(messages) > _MOST:
        print(command(level, _TITLE, f"{len(messages) - _MOST} more"), file=stream, flush=True)


def begin_line() -> None:
    """End the line that another process may have left unfinished: a command counts at the beginning of one only."""
    print(flush=True)


@contextmanager
def group(title: str) -> Iterator[None]:
    """Fold what is printed in between."""
    print(command("group", {}, title), flush=True)
    try:
        yield
    finally:
        print(command("endgroup", {}, ""), flush=True)


def set_outputs(environment: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Append `outputs` to the runner's file; print them where there is none."""
    text = "".join(_assignment(name, value) for name, value in outputs.items())
    file = environment.get("GITHUB_OUTPUT")
    if file:
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.write(text)
    else:
        print(text, end="")


def add_problems_to_summary(environment: Mapping[str, str], problems: Sequence[str]) -> None:
    """Append why nothing could be run to the job's summary, where the runner keeps one."""
    _append_to_summary(environment, "could not run", problems)


def add_error_to_summary(environment: Mapping[str, str], problem: str, failed: Sequence[str]) -> None:
    """Append why the result of a run is an error to the job's summary, after what pytest wrote there, if it did.

    `failed` are the tests that failed for other reasons than their checks.
    """
    more = [f"{len(failed) - _MOST_TESTS} more tests failed"] if len(failed) > _MOST_TESTS else []
    _append_to_summary(environment, "error", [problem, *(f"failed: {test}" for test in failed[:_MOST_TESTS]), *more])


def _append_to_summary(environment: Mapping[str, str], title: str, lines: Sequence[str]) -> None:
    file = environment.get("GITHUB_STEP_SUMMARY")
    if file:
        listed = "".join(f"- {code(line)}\n" for line in lines)
        text = f"\n## DiffTrace: {title}\n\n{listed}"
        path = Path(file)
        # Annotations and outputs say the same.
        if len(text.encode()) <= room(path):
            with path.open("a", encoding="utf-8") as stream:
                stream.write(text)


def _assignment(name: str, value: str) -> str:
    # A delimiter that cannot be known beforehand: no value can end its own assignment and begin another.
    end = f"end-{secrets.token_hex(16)}"
    return f"{name}<<{end}\n{value}\n{end}\n"
