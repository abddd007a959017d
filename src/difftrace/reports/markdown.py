"""A report as Markdown, for GitHub's job summaries and pull requests; every text from a test or a model stays text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from difftrace.core.checked import Checked
from difftrace.core.report import Report
from difftrace.core.text import printable
from difftrace.reports.acceptance import change, class_title
from difftrace.reports.job_summary import LIMIT
from difftrace.reports.markdown_text import code, escaped, fenced

_MOST_ROWS: Final = 200
_ROOM_FOR_NOTES: Final = 200
# Who reads a summary has not the machine that the command's folder was on.
_ACCEPTING: Final = (
    "To accept the new runs where they are right, download the artifact of the results folder, unpack it to FOLDER and,"
    " in a checkout:"
)
_NOTHING: Final = "–"


def report_markdown(report: Report, limit: int = LIMIT, advice: str | None = None) -> str:
    """Return counts, tables of the failed checks and of the baselines written, and each failure's text, folded.

    At most `limit` bytes of UTF-8; what does not fit is left out, with a note, and where that does not fit either,
    there is no text. `advice` is a command to accept the new runs, with FOLDER for where they are.
    """
    bad = [check for check in report.checks if not check.good and check.status != "skipped"]
    written = [check for status in ("changed", "new") for check in report.checks if check.status == status]
    parts = _Parts(max(limit - _ROOM_FOR_NOTES, 0))
    shown = parts.add(f"## DiffTrace: {_headline(report, bad)}\n\n{_counts(report)}\n") and parts.add_all(
        _states(report)
    )
    notes = []
    if bad:
        shown = shown and parts.add_all(_rows(bad))
        if advice is not None:
            shown = shown and parts.add(f"\n{_ACCEPTING}\n\n{fenced(advice)}\n")
    if written and not (shown and parts.add_all(_written_rows(written))):
        notes.append("The table of the baselines written is cut short here; the report file has them all.\n")
    if bad:
        left = sum(not parts.add(_details(check)) for check in bad if check.text) if shown else len(bad)
        if left:
            notes.append(f"{left} more failed checks are left out here; the report file has them.\n")
    if notes:
        told = "\n".join([parts.text, *notes])
        # Cut, it could end within a character or an element: where not even this fits, nothing is said.
        return told if len(told.encode()) <= limit else ""
    return parts.text


class _Parts:
    """Text that grows up to a limit."""

    def __init__(self, limit: int) -> None:
        self.text = ""
        self._left = limit

    def add(self, part: str) -> bool:
        """Take `part` in if it fits as a whole; return whether it does."""
        size = len(part.encode())
        if size > self._left:
            return False
        self.text += part
        self._left -= size
        return True

    def add_all(self, parts: Iterator[str]) -> bool:
        """Take in what fits, in order, until a part does not; return whether all did."""
        return all(self.add(part) for part in parts)


def _headline(report: Report, bad: list[Checked]) -> str:
    total = f"{len(report.checks)} check{'' if len(report.checks) == 1 else 's'}"
    return f"{len(bad)} of {total} failed" if bad else f"{total}, none failed"


def _counts(report: Report) -> str:
    lines = [_counted(report.statuses)]
    differing = {name: count for name, count in report.classes.items() if name != "IDENTICAL"}
    if differing:
        lines.append(f"by class: {_counted(differing)}")
    return "<br>\n".join(lines)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {escaped(name)}" for name, count in sorted(counts.items()))


def _states(report: Report) -> Iterator[str]:
    for title, reasons in (
        ("The run is incomplete", report.incomplete_because),
        ("Not all tests were selected", report.partial_because),
    ):
        if reasons:
            yield f"\n**{title}:** {code('; '.join(reasons))}\n"


def _rows(bad: list[Checked]) -> Iterator[str]:
    yield "\n| check | class | first difference |\n| --- | --- | --- |\n"
    for check in bad[:_MOST_ROWS]:
        name = class_title(check) if check.status == "diverged" else check.status
        if check.status == "not reproducible" and check.divergence_class is not None:
            name = f"{name}, {check.divergence_class}"
        yield f"| {code(check.title)} | {escaped(name)} | {change(check) or _NOTHING} |\n"
    if len(bad) > _MOST_ROWS:
        yield f"| and {len(bad) - _MOST_ROWS} more | | |\n"


def _written_rows(written: list[Checked]) -> Iterator[str]:
    yield "\n| recorded | check | file | class | first difference |\n| --- | --- | --- | --- | --- |\n"
    for check in written[:_MOST_ROWS]:
        file = _NOTHING if check.target is None else code(check.target)
        name = escaped(check.divergence_class or _NOTHING)
        where = change(check) if check.first_divergence is not None or check.reason is None else ""
        what = where or escaped(printable(check.reason or _NOTHING))
        yield f"| {check.status} | {code(check.title)} | {file} | {name} | {what} |\n"
    if len(written) > _MOST_ROWS:
        yield f"| and {len(written) - _MOST_ROWS} more | | | | |\n"


def _details(check: Checked) -> str:
    return f"\n<details><summary>{code(check.title)}</summary>\n\n{fenced(check.text or '')}\n\n</details>\n"
