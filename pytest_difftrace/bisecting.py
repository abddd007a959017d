"""`--difftrace-bisect`: below a failure, what running the model again on the canvas in question says."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Final

import pytest

from difftrace.core.text import printable
from pytest_difftrace.checks import Check, relative
from pytest_difftrace.session import LOADED

if TYPE_CHECKING:
    from difftrace.models import LoadedModel

_MOST_LINES: Final = 12
_WIDEST: Final = 100


def bisection(check: Check, item: pytest.Item) -> list[str]:
    """Return at most twelve lines: a title and what `difftrace.verification.bisect.bisect` found, or one why not."""
    loaded = item.stash.get(LOADED, None)
    model = check.observation.run.model
    if loaded is None or model is None or model != loaded.identity:
        return ["bisect: not done, since this is no run of the model that the llada fixture has in this test"]
    try:
        return _found(check, loaded, printable(relative(check.source, item.config)))
    except Exception as error:
        # The check's own failure is what matters; this one is told in passing.
        text = f"bisect: not done: {printable(str(error)) or type(error).__name__}"
        return [text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"]


def _found(check: Check, loaded: LoadedModel, source: str) -> list[str]:
    from difftrace.reports.bisection import finding_lines, place_of_probe, probe_command
    from difftrace.verification.bisect import bisect

    assert check.golden is not None
    step = _step(check)
    found = bisect(loaded, check.golden, step=step)
    ran = f"the golden canvas before step {found.origin.step}{place_of_probe(found)}"
    title = f"bisect: the model, run twice on {ran} ({found.modules} modules):"
    end = []
    if found.verdict == "repeatable" or (found.verdict == "no difference" and found.origin.step != step):
        end = [
            "  To compare its modules with the golden ones, where the baseline was recorded:",
            f"    {probe_command(source, step)}",
            f"  and then here: difftrace bisect {quote(source)}",
        ]
    room = _MOST_LINES - 1 - len(end)
    lines = [f"  {line}" for line in finding_lines(found)]
    if len(lines) > room:
        lines = [*lines[: room - 1], f"  and {len(lines) - room + 1} more lines; see difftrace bisect"]
    return [title, *lines, *end]


def _step(check: Check) -> int:
    """Return the first step at which the runs part or are said to differ, else 0."""
    assert check.golden is not None
    assert check.classification is not None
    said = (check.classification.step, None if check.divergence is None else check.divergence.step)
    step = min((one for one in said if one is not None), default=0)
    return min(step, *(max(record.trajectory.num_steps - 1, 0) for record in check.golden.sequences))
