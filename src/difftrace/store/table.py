"""Statements on the table of records."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any, Final, Literal

from difftrace.core.errors import ConflictError, DamagedError, FormatError, StoreError
from difftrace.store.database import Database
from difftrace.store.query import Query
from difftrace.store.record import Record, shown
from difftrace.store.row import Row, decode, differences

Outcome = Literal["added", "unchanged", "replaced"]

# Rows read at once; between pages others may write and the log may be cut back.
_PAGE: Final = 500

_COLUMNS: Final = ", ".join(Row._fields)
_MARKS: Final = ", ".join("?" * len(Row._fields))
_INSERT: Final = f"INSERT INTO record ({_COLUMNS}) VALUES ({_MARKS}) ON CONFLICT (request_id) DO NOTHING"  # noqa: S608
_SELECT: Final = f"SELECT {_COLUMNS} FROM record WHERE request_id = ?"  # noqa: S608
_UPDATE: Final = f"UPDATE record SET ({_COLUMNS}) = ({_MARKS}) WHERE request_id = ?"  # noqa: S608


def put(connection: sqlite3.Connection, row: Row, replace: bool) -> Outcome:
    """Store `row`, over a different record of its request id only if `replace`.

    Raises:
        ConflictError: there is one and `replace` is False.
        DamagedError: there is a damaged one and `replace` is False.
    """
    if connection.execute(_INSERT, row).rowcount:
        return "added"
    present = get(connection, row.request_id)
    if present is None:
        raise StoreError(f"the record {shown(row.request_id)} can neither be stored nor found; run verify_all()")
    try:
        decode(present)
    except FormatError as error:
        if not replace:
            raise damaged(row.request_id, error) from None
    else:
        different = differences(present, row)
        if not different:
            return "unchanged"
        if not replace:
            raise ConflictError(
                f"the request id {shown(row.request_id)} is taken by a record with another"
                f" {', another '.join(different)}; choose another id, or give replace=True"
            )
    connection.execute(_UPDATE, (*row, row.request_id))
    return "replaced"


def get(connection: sqlite3.Connection, request_id: str) -> Row | None:
    """Return the row of `request_id` as it is, or None."""
    found = connection.execute(_SELECT, (request_id,)).fetchone()
    return None if found is None else Row(*found)


def get_by_number(connection: sqlite3.Connection, number: int) -> Row | None:
    """Return the row of that number as it is, or None."""
    found = connection.execute(f"SELECT {_COLUMNS} FROM record WHERE number = ?", (number,)).fetchone()  # noqa: S608
    return None if found is None else Row(*found)


def checked(row: Row) -> Record:
    """Return the record of `row`.

    Raises:
        DamagedError: the row is damaged.
    """
    try:
        return decode(row)
    except FormatError as error:
        raise damaged(row.request_id, error) from None


def damaged(request_id: object, error: FormatError) -> DamagedError:
    """Return the error to raise for a row that breaks a rule."""
    return DamagedError(
        f"the record {shown(str(request_id))} is damaged: {error}; delete it, or put it again with replace=True"
    )


def select(database: Database, query: Query, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield `columns`, among them request_id and created_at, of the records that `query` means, page by page."""
    named = ", ".join(columns)
    last, left = query.last, query.limit
    while left is None or left > 0:
        size = _PAGE if left is None else min(_PAGE, left)
        clauses, parameters = query.sql(last, size)
        with database.reading() as connection:
            page = connection.execute(f"SELECT {named} FROM record{clauses}", parameters).fetchall()  # noqa: S608
        yield from page
        if len(page) < size:
            return
        ending = dict(zip(columns, page[-1], strict=True))
        last = (ending["created_at"], ending["request_id"])
        left = None if left is None else left - size


def select_by_number(database: Database) -> Iterator[Row]:
    """Yield every row as it is, in the order of insertion."""
    number = -(1 << 63)
    while True:
        with database.reading() as connection:
            page = connection.execute(
                f"SELECT number, {_COLUMNS} FROM record WHERE number > ? ORDER BY number LIMIT ?",  # noqa: S608
                (number, _PAGE),
            ).fetchall()
        if not page:
            return
        yield from (Row(*values) for _, *values in page)
        number = page[-1][0]
