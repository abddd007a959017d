"""Checks that passed although something differs: what is said of them at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from pytest_difftrace.checks import Check
    from pytest_difftrace.options import Settings

_DRIFT: Final = "DRIFT"
_COUNTABLE: Final = ("NEAR_TIE", "TIE_BREAK")


class Pass(NamedTuple):
    """A check that passed with a difference, as printable text.

    Attributes:
        test: the test's node id, and the check's name where it has one.
        name: class of the divergence; "" where it cannot be told.
        reason: why it is that class; for drift how far it goes.
        allowed_by: "policy near-tie" or "name"; "" for drift, which counts as verified.
        here: whether the environments are such that the bits should be equal.
    """

    test: str
    name: str
    reason: str
    allowed_by: str
    here: bool


def different_pass(check: Check, nodeid: str, settings: Settings) -> Pass | None:
    """Return what is to be said of `check`, which passed; None where nothing differs."""
    from difftrace.core.environments import comparable
    from difftrace.core.text import printable
    from difftrace.reports.verdict import measured_text

    found = check.classification
    if found is None or check.golden is None or found.divergence_class == "IDENTICAL":
        return None
    test = check.observation.test
    name = found.divergence_class or ""
    reason = found.reason if name != _DRIFT or found.decided_by is None else measured_text(found.decided_by)
    allowed_by = "" if name == _DRIFT else "name" if name in settings.allow else f"policy {settings.policy}"
    return Pass(
        printable(nodeid if test.name is None else f"{nodeid}, check {test.name}"),
        name,
        printable(reason),
        allowed_by,
        bool(comparable(check.golden.environment, check.observation.run.environment)),
    )


def drifted(passes: Sequence[Pass]) -> str:
    """Return what stands behind the number of verified checks: " (1 drifted within budget)"."""
    count = sum(one.name == _DRIFT for one in passes)
    return f" ({count} drifted within budget)" if count else ""


def allowed(passes: Sequence[Pass]) -> list[str]:
    """Return what was allowed: "1 near tie (allowed by policy near-tie)"."""
    counts = Counter((one.name, one.allowed_by) for one in passes if one.name != _DRIFT)
    return [f"{count} {_plain(name, count)} (allowed by {by})" for (name, by), count in sorted(counts.items())]


def lines(passes: Sequence[Pass], verbose: bool) -> list[str]:
    """Return the lines below the counts: drift where none is expected, and with `verbose` every test."""
    found = []
    here = sum(one.name == _DRIFT and one.here for one in passes)
    if here:
        checks, baselines = ("1 check", "its baseline") if here == 1 else (f"{here} checks", "their baselines")
        found.append(
            f"difftrace: {checks} drifted although {baselines} came from an environment like this one: the code has"
            " changed, or runs do not repeat their logits here" + ("" if verbose else " (-v names the tests)")
        )
    if verbose and passes:
        from difftrace.core.classes import CANNOT_TELL

        found += [f"  {one.test}: {one.name or CANNOT_TELL}: {one.reason}" for one in sorted(passes)]
    return found


def _plain(name: str, count: int) -> str:
    from difftrace.core.classes import CANNOT_TELL

    if name in _COUNTABLE:
        return f"{name.lower().replace('_', ' ')}{'' if count == 1 else 's'}"
    return f"of class {name}" if name else CANNOT_TELL
