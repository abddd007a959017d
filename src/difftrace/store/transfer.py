"""Rows from a file into a store, all of them or none."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable
from typing import Final

from difftrace.core.errors import StoreError
from difftrace.core.text import printable
from difftrace.store.row import Row
from difftrace.store.store import Changes, Store

FORMAT: Final = "difftrace-store"
VERSION: Final = "0.1"
"""Of exports, in whatever kind of file."""

_COLUMNS: Final = ", ".join(Row._fields)
_MARKS: Final = ", ".join("?" * len(Row._fields))


def store_all(store: Store, rows: Iterable[Row], replace: bool) -> Changes:
    """Draw all `rows`, which raise where they are not sound, and only then store them, in one transaction.

    Until then they lie in a temporary file of SQLite's (see SQLITE_TMPDIR), not in memory, and others may write.

    Raises:
        ConflictError: a different record has one's request id and `replace` is False; none is stored.
        StoreError: the disk fails; none is stored.
    """
    with contextlib.closing(sqlite3.connect("", isolation_level=None)) as spool:
        try:
            spool.execute(f"CREATE TABLE spool ({_COLUMNS})")
            spool.execute("BEGIN")
            spool.executemany(f"INSERT INTO spool VALUES ({_MARKS})", rows)  # noqa: S608
        except sqlite3.Error as error:
            raise StoreError(
                f"a temporary file could not be written ({printable(str(error))}); set SQLITE_TMPDIR"
            ) from error
        found = spool.execute(f"SELECT {_COLUMNS} FROM spool ORDER BY rowid")  # noqa: S608
        return store.put_rows((Row(*values) for values in found), replace=replace)
