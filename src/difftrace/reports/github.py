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

_MOST_LINES: Final = 12


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
    lines = (check.text or check.status).splitlines()
    text = "\n".join([printable(check.title), *lines[:_MOST_LINES]])
    properties = {"file": file, "line": str(check.line), "title": f"DiffTrace: {title}"}
    return command("error", properties, text)
