"""What the runner of a job hears of: annotations, groups, outputs and the job's summary."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from difftrace.core.text import printable
from difftrace.reports.markdown_text import code
from difftrace.reports.workflow_commands import command

# GitHub shows ten of a level and step.
_MOST: Final = 9
_TITLE: Final = {"title": "DiffTrace"}


def annotate(level: Literal["error", "warning", "notice"], messages: Sequence[str]) -> None:
    """Print an annotation for each of `messages`, at most ten."""
    for message in messages[:_MOST]:
        print(command(level, _TITLE, printable(message)), flush=True)
    if len(messages) > _MOST:
        print(command(level, _TITLE, f"{len(messages) - _MOST} more"), flush=True)


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
    file = environment.get("GITHUB_STEP_SUMMARY")
    if file:
        lines = "".join(f"- {code(problem)}\n" for problem in problems)
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.write(f"## DiffTrace: could not run\n\n{lines}")


def _assignment(name: str, value: str) -> str:
    # A delimiter that cannot be known beforehand: no value can end its own assignment and begin another.
    end = f"end-{secrets.token_hex(16)}"
    return f"{name}<<{end}\n{value}\n{end}\n"
