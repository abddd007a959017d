"""Baselines that another platform recorded: which file was used, and why, said with a failure and at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from pytest_difftrace.checks import Check

# The field of a recorded environment.
PLATFORM_KEY: Final = "platform_key"


class Elsewhere(NamedTuple):
    """Where a baseline that was used comes from, as printable text.

    Attributes:
        recorded: key of the platform that recorded it.
        here: key of this platform.
        shared: whether it is the shared file, else the one named for this platform.
    """

    recorded: str
    here: str
    shared: bool


def recorded_elsewhere(check: Check) -> Elsewhere | None:
    """Return where the baseline of `check` comes from if another platform recorded it, None where it is not known."""
    from difftrace.core.text import printable

    if check.golden is None:
        return None
    recorded, here = (run.environment.get(PLATFORM_KEY) for run in (check.golden, check.observation.run))
    if not isinstance(recorded, str) or not isinstance(here, str) or recorded == here:
        return None
    return Elsewhere(printable(recorded), printable(here), check.shared)


def explanation(elsewhere: Elsewhere) -> list[str]:
    """Return the lines below the baseline's name in a failure."""
    why = "no file of its own" if elsewhere.shared else "this file although it was recorded elsewhere"
    return [f"  recorded on {elsewhere.recorded}", f"  this is {elsewhere.here}, which has {why}"]


def summary(elsewhere: Elsewhere, count: int) -> str:
    """Return the line at the end: "3 checks verified against baselines recorded on cuda-sm90 (…)"."""
    checks, baselines = ("1 check", "a baseline") if count == 1 else (f"{count} checks", "baselines")
    files = "shared files" if elsewhere.shared else f"files of {elsewhere.here}"
    return (
        f"difftrace: {checks} verified against {baselines} recorded on {elsewhere.recorded}"
        f" ({files}; this is {elsewhere.here})"
    )
