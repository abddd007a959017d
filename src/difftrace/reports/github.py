"""Failed checks as annotations of GitHub's runners, at the line of the check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from difftrace.core.checked import Checked
from difftrace.core.text import printable
from difftrace.reports.acceptance import class_title
from difftrace.reports.workflow_commands import command

MOST: Final = 8
"""GitHub shows ten errors of a step: eight, one that says how many more there are, one left to what runs pytest."""

# A failure's text up to what each run decides where they part: a headline with four lines of where, eight of reasons
# and three of the decisions, with blank lines between.
_MOST_LINES: Final = 18
_REST: Final = "The rest is in the job's summary, or else in its log."


def annotation_lines(checks: Sequence[Checked], file: Callable[[str], str]) -> list[str]:
    """Return a workflow command for each failed check of `checks`, at most nine.

    `file` turns a path seen from pytest's root folder into one seen from the repository's.
    """
    bad = [check for check in checks if not check.good and check.status != "skipped"]
    lines = [_annotation(check, file(check.file)) for check in bad[:MOST]]
    more = len(bad) - MOST
    if more > 0:
        lines.append(command("error", {"title": "DiffTrace"}, f"{more} more check{'' if more == 1 else 's'} failed"))
    return lines


def _annotation(check: Checked, file: str) -> str:
    title = class_title(check) if check.status == "diverged" else check.status
    text = "\n".join([printable(check.title), *_start((check.text or check.status).splitlines())])
    properties = {"file": file, "line": str(check.line), "title": f"DiffTrace: {title}"}
    return command("error", properties, text)


def _start(lines: list[str]) -> list[str]:
    """Return as many whole sections of a text as there is room for, and where the rest is if that is not all of it.

    Sections end at blank lines: to cut within one would show what one run decides and not what the other does.
    """
    if len(lines) <= _MOST_LINES:
        return lines
    ends = [index for index, line in enumerate(lines[: _MOST_LINES + 1]) if not line]
    return [*lines[: max(ends, default=0) or _MOST_LINES], "", _REST]
