"""The live state: what is asked for, what is in force, and what has drifted since."""

from __future__ import annotations

from dataclasses import dataclass

from difftrace.determinism.devices import profile_of
from difftrace.determinism.enforcement import innermost
from difftrace.determinism.profiles import rows
from difftrace.determinism.switch_states import SwitchState, states


@dataclass(frozen=True)
class Status:
    """All switches of a profile. True in a condition where determinism is enforced.

    Attributes:
        profile: name of the profile they are of.
        level: "strict" or "warn"; None outside `enforce`.
        seed: what generators were seeded with; None outside `enforce`.
        switches: each switch.
        drift: those that were in force when `enforce` began and are not any more.
    """

    profile: str
    level: str | None
    seed: int | None
    switches: tuple[SwitchState, ...]
    drift: tuple[SwitchState, ...]

    @property
    def active(self) -> bool:
        """Whether an `enforce` is in force."""
        return self.level is not None

    @property
    def missing(self) -> tuple[SwitchState, ...]:
        """Required switches that are known not to be in force."""
        return tuple(switch for switch in self.switches if switch.required and switch.in_force is False)

    @property
    def enforced(self) -> bool:
        """Whether an `enforce` is in force and no required switch is known not to be."""
        return self.active and not self.missing

    def __bool__(self) -> bool:
        return self.enforced


def status(profile: str | None = None) -> Status:
    """Return what is in force now, read anew.

    Inside `enforce` that is measured by what it asked for; outside by `profile`, None for the one of the device that
    torch finds. Nothing is set. Raises DeterminismError for an unknown profile.
    """
    held = innermost()
    if held is None or (profile is not None and profile != held.profile):
        name = profile or profile_of(None)
        return Status(name, None, None, states({row: row.value for row in rows(name)}), ())
    return Status(held.profile, held.level, held.seed, held.states(), held.drift())
