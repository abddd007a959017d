"""What can still be read of a damaged store, copied into a whole one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from difftrace.core.errors import ConflictError
from difftrace.store.damage import Problem
from difftrace.store.paths import refuse_own_files
from difftrace.store.row import Row
from difftrace.store.store import Store

# Rows stored at once.
_BATCH: Final = 256


@dataclass(frozen=True)
class Salvaged:
    """What copying out of a damaged store came to.

    Attributes:
        copied: records that are whole and in the target now, those that were there already included.
        lost: what could not be copied, and why.
    """

    copied: int
    lost: tuple[Problem, ...]


def salvage(source: Store, target: Store) -> Salvaged:
    """Copy every record of `source` that can be read and is whole into `target`; doing it again changes nothing.

    Damage stops nothing but what it hits. `source` is not written to. Where it cannot even be opened with
    `read_only=True`, its beginning is damaged and only a backup helps.

    Raises:
        StoreError: `target` is the same store, or cannot be written.
        BusyError: others kept either locked for too long.
    """
    refuse_own_files(source.path, target.path)
    batch: list[Row] = []
    lost: list[Problem] = []
    copied = 0
    for found in source.surviving():
        if isinstance(found, Problem):
            lost.append(found)
            continue
        batch.append(found)
        if len(batch) == _BATCH:
            copied += _put(target, batch, lost)
            batch = []
    copied += _put(target, batch, lost)
    return Salvaged(copied, tuple(lost))


def _put(target: Store, rows: list[Row], lost: list[Problem]) -> int:
    try:
        target.put_rows(rows, replace=False)
    except ConflictError as error:
        if len(rows) > 1:
            return sum(_put(target, [row], lost) for row in rows)
        lost.append(Problem(rows[0].request_id, str(error)))
        return 0
    return len(rows)
