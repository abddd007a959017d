"""What promoted baselines change, as the text of a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from difftrace.core.acceptance import Proposal
from difftrace.core.baseline import Baseline
from difftrace.reports.acceptance import change, class_title
from difftrace.reports.context import other_differences
from difftrace.reports.markdown_text import code, fenced

LIMIT: Final = 65_536
"""What GitHub takes as a pull request's text, in characters."""

_FOR_TABLE: Final = 40_000
_FOR_NOTES: Final = 200
_MOST_CHANGES: Final = 20


def pull_request_body(proposals: Sequence[Proposal]) -> str:
    """Return what changes from the old baselines to the new ones, as Markdown; empty where nothing does.

    At most `LIMIT` characters: rows and details that find no room are counted.
    """
    if not proposals:
        return ""
    count = len(proposals)
    head = (
        f"{count} baseline{'' if count == 1 else 's'} recorded anew.\n\n"
        "| check | old | new | class | first difference |\n| --- | --- | --- | --- | --- |\n"
    )
    rows = _fitting(map(_row, proposals), _FOR_TABLE)
    table = head + "".join(rows) + _more(count - len(rows), "baselines")
    changed = [one for one in proposals if one.current is not None]
    details = _fitting(map(_details, changed[:_MOST_CHANGES]), LIMIT - _FOR_NOTES - len(table))
    return table + "".join(details) + _more(len(changed) - len(details), "changed baselines without details here")


def _fitting(parts: Iterable[str], room: int) -> list[str]:
    """Return the first of `parts` that have no more than `room` characters together."""
    found = []
    for part in parts:
        room -= len(part)
        if room < 0:
            break
        found.append(part)
    return found


def _more(count: int, what: str) -> str:
    return f"\n…and {count} more {what}.\n" if count else ""


def _row(one: Proposal) -> str:
    old = "–" if one.current is None else code(_short(one.current))
    title = "new" if one.current is None else class_title(one.check).replace("_", "\\_")
    new, where = code(_short(one.received)), change(one.check) or "–"
    return f"| {code(one.check.title)} | {old} | {new} | {title} | {where} |\n"


def _details(one: Proposal) -> str:
    assert one.current is not None
    differences = other_differences(one.current, one.received)
    reason = [one.check.reason] if one.check.reason else []
    text = "\n".join([*reason, *differences]) or "nothing but the decisions differs"
    return f"\n<details><summary>{code(one.check.title)}</summary>\n\n{fenced(text)}\n\n</details>\n"


def _short(baseline: Baseline) -> str:
    return baseline.digest[:19]
