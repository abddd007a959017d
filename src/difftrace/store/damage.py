"""Finding what is whole in a file of which parts cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from difftrace.core.errors import BusyError, FormatError, StoreError
from difftrace.store import table
from difftrace.store.database import Database
from difftrace.store.row import Row, decode

# Ways to the numbers of all rows. Damage blocks each at another place, and may be met later from the other end.
_WAYS: Final = (
    "NOT INDEXED ORDER BY number",
    "NOT INDEXED ORDER BY number DESC",
    "INDEXED BY record_by_time ORDER BY created_at, request_id",
    "INDEXED BY record_by_time ORDER BY created_at DESC, request_id DESC",
    "INDEXED BY record_by_model ORDER BY model, created_at, request_id",
    "INDEXED BY record_by_model ORDER BY model DESC, created_at DESC, request_id DESC",
)


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a store: in the record of that id, or, where it is None, in the file."""

    request_id: str | None
    message: str


def surviving(database: Database) -> Iterator[Row | Problem]:
    """Yield every row that can be read and is whole, and a problem for everything that cannot or is not.

    Raises:
        StoreError: the file cannot be opened, or others kept it locked.
    """
    # A store that is closed or locked is no damaged one.
    with database.reading():
        pass
    numbers, problem = _numbers(database)
    if problem is not None:
        yield problem
    for number in numbers:
        yield _row(database, number)


def _row(database: Database, number: int) -> Row | Problem:
    try:
        with database.reading() as connection:
            row = table.get_by_number(connection, number)
    except BusyError:
        raise
    except StoreError as error:
        return Problem(None, f"record number {number} cannot be read: {error}")
    if row is None:
        return Problem(None, f"record number {number} is in an index and not in the table")
    try:
        decode(row)
    except FormatError as error:
        return Problem(row.request_id, str(table.damaged(row.request_id, error)))
    return row


def _numbers(database: Database) -> tuple[list[int], Problem | None]:
    """Return the numbers of all rows that can be found, ascending, and what may hide others."""
    found: set[int] = set()
    problem = None
    for way in _WAYS:
        try:
            with database.reading() as connection:
                for (number,) in connection.execute(f"SELECT number FROM record {way}"):  # noqa: S608
                    found.add(number)
        except BusyError:
            raise
        except StoreError as error:
            problem = problem or Problem(None, f"{error}; there may be records that nothing leads to any more")
        else:
            # One way that comes to its end has passed all of them.
            return sorted(found), None
    return sorted(found), problem
