"""The tables of a store, and how files of older versions become today's."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Final

from difftrace.core.errors import StoreError
from difftrace.core.text import printable
from difftrace.store.row import Row

APPLICATION_ID: Final = 0x44695472
""""DiTr", by which `file` and we tell a store from other SQLite databases."""

# Not STRICT, which SQLite has from 3.37 on only: the Pythons of RHEL 9 and Debian 11 bring 3.34.
MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE record (
            number INTEGER PRIMARY KEY,
            request_id TEXT NOT NULL UNIQUE CHECK (typeof(request_id) = 'text'),
            created_at INTEGER NOT NULL CHECK (typeof(created_at) = 'integer'),
            model TEXT CHECK (model IS NULL OR typeof(model) = 'text'),
            metadata TEXT NOT NULL CHECK (typeof(metadata) = 'text'),
            prompt_length INTEGER NOT NULL CHECK (typeof(prompt_length) = 'integer'),
            canvas_length INTEGER NOT NULL CHECK (typeof(canvas_length) = 'integer'),
            num_steps INTEGER NOT NULL CHECK (typeof(num_steps) = 'integer'),
            num_events INTEGER NOT NULL CHECK (typeof(num_events) = 'integer'),
            trajectory_digest TEXT NOT NULL CHECK (typeof(trajectory_digest) = 'text'),
            digest TEXT NOT NULL CHECK (typeof(digest) = 'text'),
            trajectory BLOB NOT NULL CHECK (typeof(trajectory) = 'blob'),
            output BLOB CHECK (output IS NULL OR typeof(output) = 'blob')
        )""",
        "CREATE INDEX record_by_time ON record (created_at, request_id)",
        "CREATE INDEX record_by_model ON record (model, created_at, request_id)",
    ),
)
"""Entry i makes version i + 1 out of version i, `PRAGMA user_version`; released entries never change."""

# Bytes. A record takes about 1.5 KB: of SQLite's usual 4 KB it would leave a quarter unused.
_PAGE_SIZE: Final = 8192


def prepare(connection: sqlite3.Connection, path: Path, read_only: bool, timeout: float) -> None:
    """Make sure that `connection` has a store of today's version: check it, create it or migrate it.

    Raises:
        StoreError: the file is something else, of a newer version, or must be written first. It is unchanged.
    """
    where = printable(str(path))
    found = _version(connection, where)
    if read_only:
        if found == 0:
            raise StoreError(f"{where}: is empty, so there is nothing to read")
        if found < len(MIGRATIONS):
            raise StoreError(
                f"{where}: is a store of version {found}; open it once for writing, which brings it to version"
                f" {len(MIGRATIONS)}"
            )
    else:
        _use_write_ahead_log(connection, where, timeout)
        if found < len(MIGRATIONS):
            _migrate(connection, where)
    _check_objects(connection, where)


def _version(connection: sqlite3.Connection, where: str) -> int:
    """Return the version of the store, 0 for an empty database."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application or version or objects:
            raise StoreError(f"{where}: is a SQLite database of something else; choose another file")
        return 0
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{where}: is a store of version {version}, written by a newer pytest-difftrace; this one knows up to"
            f" {len(MIGRATIONS)}, so update it"
        )
    return int(version)


def _use_write_ahead_log(connection: sqlite3.Connection, where: str, timeout: float) -> None:
    """Let readers and a writer work at once; the file remembers it."""
    # Heeded where the file is still empty.
    connection.execute(f"PRAGMA page_size = {_PAGE_SIZE}")
    deadline = time.monotonic() + timeout
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            # Where several processes create one store, SQLite gives up on this without waiting.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            break
    if mode != "wal":
        raise StoreError(f"{where}: SQLite cannot use a write-ahead log there; put it on a local disk")


def _migrate(connection: sqlite3.Connection, where: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have been faster.
        for statements in MIGRATIONS[_version(connection, where) :]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check_objects(connection: sqlite3.Connection, where: str) -> None:
    columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(record)")}
    missing = [name for name in Row._fields if name not in columns]
    if missing:
        raise StoreError(f"{where}: is no store, for its table lacks {', '.join(missing)}")
    foreign = connection.execute("SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'view')").fetchone()
    if foreign is not None:
        kind, name = foreign
        raise StoreError(f"{where}: holds the {kind} {printable(name)}, which no store does; it could alter records")
