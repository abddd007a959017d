"""What accepting received runs changes, as lines: by class, and by what changed in the environment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from difftrace.core.acceptance import Plan, Proposal
from difftrace.core.checked import Checked
from difftrace.core.classes import CANNOT_TELL
from difftrace.core.text import printable
from difftrace.reports.columns import wrapped
from difftrace.reports.context import environment_differences

_MOST: Final = 50


def acceptance_lines(plan: Plan) -> list[str]:
    """Return what would be promoted, what is refused and what is left, each with why."""
    lines = [*_proposed(plan), *(line for one in plan.left for line in _line("left", one.check, one.reason))]
    lines += [line for one in plan.refusals for line in _line("refused", one.check, one.reason)]
    if plan.refusals:
        lines.append("nothing is written while one is refused; --only chooses others")
    return lines or ["nothing to accept: no check failed that was asked for"]


def change(check: Checked) -> str:
    """Return where the runs part and what comes of it: "step 3, position 17; 2 final tokens differ"."""
    first, outcome, told = check.first_divergence, check.outcome, []
    if first is not None and first.step is not None:
        at = "" if first.position is None else f", position {first.position}"
        told.append(f"step {first.step}{at}" + (f" of sequence {first.sequence}" if first.sequence else ""))
    elif first is not None:
        told.append(first.kind)
    if outcome is not None:
        told.append(f"{outcome.tokens} final token{' differs' if outcome.tokens == 1 else 's differ'}")
    return "; ".join(told)


def class_title(check: Checked) -> str:
    """Return the class as a title; for a check without baseline that it has none."""
    if check.status == "without baseline":
        return "without baseline"
    return check.divergence_class or CANNOT_TELL


def _proposed(plan: Plan) -> Iterator[str]:
    groups: dict[tuple[str, tuple[str, ...]], list[Proposal]] = {}
    for one in plan.proposals:
        groups.setdefault((class_title(one.check), _environment(one)), []).append(one)
    for (title, environment), members in sorted(groups.items()):
        yield f"{title}: {len(members)} check{'' if len(members) == 1 else 's'}"
        yield from (f"  {line}" for line in environment)
        for one in members[:_MOST]:
            told = change(one.check)
            yield f"    {printable(one.check.title)}{': ' if told else ''}{told}"
        if len(members) > _MOST:
            yield f"    and {len(members) - _MOST} more"


def _environment(one: Proposal) -> tuple[str, ...]:
    if one.current is None:
        return ()
    before, after = one.current.environment, one.received.environment
    return tuple(environment_differences(before, after)) or ("environment: the same",)


def _line(what: str, check: Checked, reason: str) -> list[str]:
    return [f"{what}: {printable(check.title)}", *wrapped(reason, "  ")]
