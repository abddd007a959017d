"""The values that variables of a profile get before torch is imported. No torch."""

from __future__ import annotations

from difftrace.core.errors import DeterminismError
from difftrace.determinism.profiles import Row


def value_for(row: Row, found: str | None) -> str | None:
    """Return what the variable of `row` has to be, None for not set: what is `found` where that serves.

    Raises:
        DeterminismError: what is found can neither be kept nor replaced.
    """
    if row.accepts(found):
        return found
    if row.refuses and found is not None:
        serves = " or ".join(filter(None, (str(row.value), row.presets)))
        raise DeterminismError(
            f"{row.name}={found!r} in the environment: {row.why}; set {row.name}={serves}, or unset it"
        )
    return None if row.value is None else str(row.value)
