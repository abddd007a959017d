"""A SQLite file shared by threads and processes: connecting, transactions, forks, and errors that say what to do."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal

from difftrace.core.errors import BusyError, StoreError
from difftrace.core.text import printable

_OLDEST_SQLITE: Final = (3, 24, 0)
# Pages, as estimated, after which a connection copies the write-ahead log into the file, so that it can start anew. It
# is overwritten then, which is faster than growing; only from an unusual size, in bytes, it is cut back.
_LOG_PAGES: Final = 1000
_LOG_KEPT: Final = 64 << 20

Durability = Literal["power", "process"]

# What a commit waits for: that the disk has it, or that the system has, which writes it before the file that it belongs
# to. In either case the file stays whole and what is lost are the last commits.
_SYNCHRONOUS: Final[dict[Durability, str]] = {
    "power": "PRAGMA synchronous = FULL",
    "process": "PRAGMA synchronous = NORMAL",
}

_PRAGMAS: Final = (
    # Where a commit waits for the disk, only this makes macOS wait.
    "PRAGMA fullfsync = ON",
    "PRAGMA checkpoint_fullfsync = ON",
    # We copy the log ourselves, see `_copy_log`.
    "PRAGMA wal_autocheckpoint = 0",
    f"PRAGMA journal_size_limit = {_LOG_KEPT}",
    # Deleted prompts are overwritten, not only forgotten.
    "PRAGMA secure_delete = ON",
    # The file may come from anywhere: nothing in its schema may call functions, and damage is noticed early.
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
)

_ADVICE: Final = (
    (("disk is full",), "free space on its disk"),
    (("disk I/O error",), "free space on its disk, look at the limits on file sizes and at the system's log"),
    (
        ("not a database", "malformed", "encrypted", "file format", "schema"),
        "it is no store or it is damaged; restore a backup, or copy what can be read with difftrace.store.salvage()",
    ),
    (("readonly", "read-only"), "make the file and its folder writable or open the store read-only"),
    (("unable to open",), "look whether its folder exists and may be read and written"),
    (("no such table", "no such column"), "it is no store"),
)


class Database:
    """One connection to the file `path`, safe to use from several threads; `prepare` is called with each new one.

    A connection never lives on across a fork: SQLite would then believe in locks that only the parent holds, and
    what the child commits could be lost (sqlite.org/howtocorrupt.html, section 2.6). Before a fork the connection is
    closed, after it parent and child open their own when they next need one.

    The file must not be opened by other means than SQLite's meanwhile: closing it again would drop SQLite's locks
    on POSIX systems (section 2.2 there). Nor may it be deleted or replaced: what is written then goes to a file without
    a name (section 4.1), so that no transaction ends well any more.

    Raises:
        StoreError: the file cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        read_only: bool,
        timeout: float,
        durability: Durability,
        prepare: Callable[[sqlite3.Connection], None],
    ) -> None:
        if durability not in _SYNCHRONOUS:
            raise StoreError(f'durability is {durability!r}; it must be "power" or "process"')
        self.path = path
        self.read_only = read_only
        self._timeout = timeout
        self._durability = durability
        self._prepare = prepare
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._closed = False
        self._log_pages = 0
        with _guard:
            _databases.add(self)
        with self.reading():
            pass

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection for single statements, to this thread alone."""
        with self._lock, self._explained():
            yield self._connected()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection inside a transaction, which is stored when the block has ended, or never was.

        Raises:
            BusyError: another connection kept writing for the whole timeout.
            StoreError: it could not be written, or the file was deleted or replaced; nothing of the block is stored.
        """
        with self.reading() as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                before = _extent(connection)
                yield connection
                pages = _extent(connection) - before
                self._check_in_place()
                connection.execute("COMMIT")
            except BaseException:
                self._roll_back(connection)
                raise
            # A commit writes the end of the table and a leaf of each index anew.
            self._keep_log_short(connection, 4 + max(0, pages))

    def busy_error(self) -> BusyError:
        """Return the error to raise when others use the file for too long."""
        return BusyError(
            f"{printable(str(self.path))}: another process or thread kept it locked for {self._timeout:g} s; try again,"
            " or wait longer with timeout="
        )

    def close(self) -> None:
        """Close the connection for good; closing twice is nothing."""
        with self._lock:
            self._closed = True
            self._disconnect()

    def _connected(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreError(f"{printable(str(self.path))}: this store has been closed; open it again")
        if self._connection is None:
            connection = self._connect()
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
            self._file = _identity(self.path)
        return self._connection

    def _check_in_place(self) -> None:
        if _identity(self.path) != self._file:
            raise StoreError(
                f"{printable(str(self.path))}: was deleted or replaced while it was open, so that nothing more can be"
                " stored there; export what this store still reads, then open it again"
            )

    def _connect(self) -> sqlite3.Connection:
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise StoreError(f"this Python has SQLite {sqlite3.sqlite_version}; a store needs 3.24 or newer")
        mode = "mode=ro" if self.read_only else "mode=rwc"
        if self.read_only and self._untouchable():
            # Nobody writes there, and reading as usual would need to create a file for locks.
            mode = "mode=ro&immutable=1"
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?{mode}",
            uri=True,
            timeout=self._timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        # Damaged text then reaches the checks of its own row instead of failing the whole statement.
        connection.text_factory = _text
        try:
            for pragma in (_SYNCHRONOUS[self._durability], *_PRAGMAS):
                connection.execute(pragma)
        except BaseException:
            connection.close()
            raise
        return connection

    def _untouchable(self) -> bool:
        log = self.path.with_name(f"{self.path.name}-wal")
        return self.path.exists() and not log.exists() and not os.access(self.path.parent, os.W_OK)

    def _keep_log_short(self, connection: sqlite3.Connection, pages: int) -> None:
        """Copy the log now and then; the last commit has written about so many `pages` to it."""
        self._log_pages += pages
        if self._log_pages >= _LOG_PAGES:
            self._log_pages = 0
            # What was committed is safe without it, and the next commit will meet what is wrong.
            with contextlib.suppress(sqlite3.Error):
                self._copy_log(connection)

    def _copy_log(self, connection: sqlite3.Connection) -> None:
        """Copy the write-ahead log into the file while nobody can commit.

        SQLite does so by itself after a commit, and then others may commit meanwhile. Up to version 3.51.2, which
        nearly every Python has, this can lose what they commit (sqlite.org/wal.html, "The WAL-reset bug"). Holding the
        lock for writing excludes that. It takes a second connection, for the one with the lock cannot copy.
        """
        try:
            connection.execute("BEGIN IMMEDIATE")
            with contextlib.closing(self._connect()) as copying:
                copying.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        finally:
            self._roll_back(connection)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            # Closing undoes it as well, and the next call starts afresh.
            self._disconnect()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into ours."""
        try:
            yield
        except sqlite3.Error as error:
            reason = str(error)
            where = printable(str(self.path))
            if "locked" in reason or "locking protocol" in reason:
                raise self.busy_error() from error
            advice = next((text for signs, text in _ADVICE if any(sign in reason for sign in signs)), None)
            if self.read_only and "readonly" in reason:
                advice = "it was opened with read_only=True"
            raise StoreError(f"{where}: {printable(reason)}" + (f"; {advice}" if advice is not None else "")) from error


def _extent(connection: sqlite3.Connection) -> int:
    """Return a number that rises by about the pages a transaction writes: those added, and one for each row."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    return int(pages) + connection.total_changes


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells the file at `path` from one that takes its place; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


_guard = threading.RLock()
_databases: weakref.WeakSet[Database] = weakref.WeakSet()
_held: list[Database] = []


def _before_fork() -> None:
    _guard.acquire()
    for database in list(_databases):
        database._lock.acquire()
        _held.append(database)
        database._disconnect()


def _after_fork() -> None:
    while _held:
        _held.pop()._lock.release()
    _guard.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
