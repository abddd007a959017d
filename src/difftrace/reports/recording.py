"""What recording prompts said, as lines: one on each baseline, and why below those that were not written.

Lines are at most 100 columns wide; only paths and commands, which must stay whole to be of use, may be wider.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from difftrace.core.prompt_recording import STATUSES, WRITTEN, Recorded, Status
from difftrace.core.text import printable
from difftrace.reports.columns import LINE, clip, wrapped
from difftrace.reports.failure import divergence_text
from difftrace.reports.verdict import reason_lines

_INDENT: Final = "  "
_SHOUTED: Final = ("differs", "not reproducible", "refused")


def recorded_lines(path: str, result: Recorded) -> list[str]:
    """Return the lines on a baseline."""
    status = result.status.upper() if result.status in _SHOUTED else result.status
    lines = [f"{status:<16}  {printable(path)}"]
    if result.problem is not None:
        # A reader's message starts with the file, which has just been named.
        problem = printable(result.problem).removeprefix(f"{printable(path)}: ")
        return [*lines, *wrapped(problem, _INDENT)]
    if result.sides is not None:
        return [*lines, "", *_difference(result), ""]
    if result.status in WRITTEN and result.observed is not None:
        lines += [clip(f"{_INDENT}{_text(record.text)}", LINE) for record in result.observed.sequences]
    for remark in result.remarks:
        lines += wrapped(f"note: {remark}", _INDENT)
    return lines


def recording_summary(statuses: Sequence[Status], total: int) -> str:
    """Return "3 baselines: 2 new, 1 unchanged"; `total` were to be recorded."""
    counted = Counter(statuses)
    parts = [f"{counted[status]} {status}" for status in STATUSES if counted[status]]
    if len(statuses) < total:
        parts.append(f"{total - len(statuses)} not run")
    return f"{total} baseline{'' if total == 1 else 's'}: {', '.join(parts)}"


def _text(text: str | None) -> str:
    return "(no text: the model has no tokenizer)" if text is None else printable(text)


def _difference(result: Recorded) -> list[str]:
    assert result.sides is not None
    assert result.classification is not None
    found = result.classification
    name = "" if found.divergence_class is None else f"{found.divergence_class}: "
    if result.status == "differs":
        subject = f"{name}run differs from its baseline"
        labels = ("golden", "observed")
        advice = ["If the new run is right, record it with --scope changed."]
    else:
        subject = "not recorded: two runs differ"
        labels = ("run 1", "run 2")
        advice = [
            "A baseline that is not reproduced would fail at random. `difftrace doctor` tells what of this",
            "environment is not deterministic, `difftrace scan` which operations of the model.",
        ]
    text = divergence_text(
        *result.sides,
        result.divergence,
        subject=subject,
        where=[],
        reasons=reason_lines(found),
        advice=advice,
        labels=labels,
    )
    return text.splitlines()
