"""The provenance store: what was generated for which request, in one SQLite file."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from difftrace.core.errors import BusyError, FormatError, NotStoredError, StoreError
from difftrace.core.text import printable
from difftrace.store import table
from difftrace.store.damage import Problem, surviving
from difftrace.store.database import Database, Durability
from difftrace.store.paths import checked_path
from difftrace.store.query import EVERYTHING, Query
from difftrace.store.record import Entry, Record, check_text, shown
from difftrace.store.row import ENTRY_COLUMNS, Row, decode, decode_entry, encode
from difftrace.store.schema import prepare

# Seconds. SQLite counts milliseconds in 32 bits.
_LONGEST_TIMEOUT: Final = 2_000_000


@dataclass(frozen=True)
class Changes:
    """What storing several records came to.

    Attributes:
        added: records under request ids that were free.
        unchanged: records that were there already.
        replaced: records that took the place of different or damaged ones.
    """

    added: int = 0
    unchanged: int = 0
    replaced: int = 0


class Store:
    """The records in the file `path`, which is created, with its folder, where it is missing.

    What a call has stored is neither lost nor half there whatever happens to the process after the call has returned.
    With `durability="power"` it is then on the disk and survives power cuts too, as far as the disk keeps its promises.
    Any number of processes and threads may use one file at once, each with a Store of its own or threads sharing one,
    also across a fork. While one writes the others read what was there before, and those that also want to write wait.
    The file belongs on a local disk: SQLite's write-ahead log does not work over a network.

    Args:
        path: the file. Beside it SQLite keeps `-wal` and `-shm` while it is open, which belong to it.
        read_only: refuse to write, and to create or migrate the file.
        timeout: seconds to wait for others that write, 2,000,000 at most.
        durability: what a commit waits for. "power": the disk, so that what is acknowledged survives a power cut or a
            crash of the system. "process": the system alone, which is faster; what is acknowledged survives the end of
            the process, kill -9 included, while a power cut may take the last seconds, never more than a whole number
            of transactions, and leaves the file whole.

    Raises:
        StoreError: the file cannot be opened, is no store or is of a newer version, or an argument makes no sense.
            Every method can also raise it when the disk fails.
        BusyError: others kept writing for longer than `timeout`; as every method.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        timeout: float = 60.0,
        durability: Durability = "power",
    ) -> None:
        absolute = checked_path(path).absolute()
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 <= timeout <= _LONGEST_TIMEOUT:
            raise StoreError(f"timeout is {timeout!r}; it must be a number of seconds from 0 to {_LONGEST_TIMEOUT}")
        if not read_only:
            try:
                absolute.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(
                    f"{printable(str(absolute))}: its folder cannot be created ({error.strerror}); choose another"
                ) from error
        self._database = Database(
            absolute,
            read_only,
            timeout,
            durability,
            lambda connection: prepare(connection, absolute, read_only, timeout),
        )

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    def put(self, record: Record, *, replace: bool = False) -> bool:
        """Store `record`; return False where it was there already.

        Equal trajectory, output, model and metadata make it the same record; its first time stays.

        Raises:
            ConflictError: a different record has its request id and `replace` is False.
        """
        return self.put_many([record], replace=replace).unchanged == 0

    def put_many(self, records: Iterable[Record], *, replace: bool = False) -> Changes:
        """Store all `records` in one transaction, or none.

        One transaction of a hundred costs little more than one of a single record.

        Raises:
            ConflictError: a different record has one's request id and `replace` is False; none is stored.
        """
        return self.put_rows([encode(record) for record in records], replace=replace)

    def put_rows(self, rows: Iterable[Row], *, replace: bool) -> Changes:
        """Do as `put_many` with rows that were checked; others wait while `rows` are drawn."""
        with self._database.writing() as connection:
            outcomes: Counter[table.Outcome] = Counter(table.put(connection, row, replace) for row in rows)
        return Changes(outcomes["added"], outcomes["unchanged"], outcomes["replaced"])

    def put_each(self, records: Sequence[tuple[Record, bool]]) -> list[StoreError | None]:
        """Store in one transaction what can be of (record, replace); return for each None or why not.

        Raises:
            StoreError: the disk fails; nothing is stored.
        """
        rows = [(encode(record), replace) for record, replace in records]
        with self._database.writing() as connection:
            return [_refusal(connection, row, replace) for row, replace in rows]

    def get(self, request_id: str) -> Record:
        """Return the record of `request_id` after checking its digests.

        Raises:
            NotStoredError: there is none.
            DamagedError: it is damaged.
        """
        check_text("request_id", request_id)
        with self._database.reading() as connection:
            row = table.get(connection, request_id)
        if row is None:
            raise NotStoredError(f"{printable(str(self.path))}: no record has the request id {shown(request_id)}")
        return table.checked(row)

    def __contains__(self, request_id: str) -> bool:
        check_text("request_id", request_id)
        with self._database.reading() as connection:
            return connection.execute("SELECT 1 FROM record WHERE request_id = ?", (request_id,)).fetchone() is not None

    def entries(self, query: Query = EVERYTHING) -> Iterator[Entry]:
        """Yield what a list shows of the records that `query` means; what it tells is not checked.

        They are read in pages: what others store meanwhile comes up if its place in the order was not passed yet.

        Raises:
            StoreError: an entry cannot even be read.
        """
        for values in table.select(self._database, query, ENTRY_COLUMNS):
            try:
                yield decode_entry(values)
            except FormatError as error:
                raise table.damaged(values[0], error) from None

    def records(self, query: Query = EVERYTHING) -> Iterator[Record]:
        """Yield the records that `query` means, checked as by `get`, read in pages as by `entries`."""
        return (record for record, _ in self.rows(query))

    def rows(self, query: Query = EVERYTHING) -> Iterator[tuple[Record, Row]]:
        """Yield as `records` does, with the row of each."""
        for values in table.select(self._database, query, Row._fields):
            row = Row(*values)
            yield table.checked(row), row

    def surviving(self) -> Iterator[Row | Problem]:
        """Yield the row of every record that can be read and is whole, and a problem for everything else.

        Slower than `rows`, for each is looked for by itself, so that damage anywhere hides nothing else.
        """
        return surviving(self._database)

    def count(self, query: Query = EVERYTHING) -> int:
        """Return how many records `query` means."""
        clauses, parameters = query.sql(query.last, query.limit)
        with self._database.reading() as connection:
            (number,) = connection.execute(
                f"SELECT count(*) FROM (SELECT 1 FROM record{clauses})",  # noqa: S608
                parameters,
            ).fetchone()
        return int(number)

    def delete(self, *request_ids: str) -> int:
        """Delete the records of `request_ids`, damaged ones too, in one transaction; return how many there were."""
        for request_id in request_ids:
            check_text("request_id", request_id)
        with self._database.writing() as connection:
            statement = "DELETE FROM record WHERE request_id = ?"
            return connection.executemany(statement, [(request_id,) for request_id in request_ids]).rowcount

    def delete_matching(self, query: Query) -> int:
        """Delete the records that `query` means in one transaction; return how many there were."""
        clauses, parameters = query.sql(query.last, query.limit)
        with self._database.writing() as connection:
            statement = f"DELETE FROM record WHERE number IN (SELECT number FROM record{clauses})"  # noqa: S608
            return connection.execute(statement, parameters).rowcount

    def vacuum(self) -> None:
        """Give the space of deleted records back to the file system; nothing of them is left in the files after.

        Writes the file anew, for which others that write wait, and for which the disk needs its size once more.

        Raises:
            BusyError: another connection was reading or writing all the time.
        """
        with self._database.reading() as connection:
            connection.execute("VACUUM")
            (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise self._database.busy_error()

    def verify_all(self, also: Callable[[Record], str | None] | None = None) -> list[Problem]:
        """Check the file and every record in it; return all problems, none for a store that is whole.

        Args:
            also: what else there is to check of a record that is whole in itself; a text is a problem of it.
        """
        problems = []
        # A store that is closed or locked is no damaged one.
        with self._database.reading():
            pass
        try:
            with self._database.reading() as connection:
                messages = [message for (message,) in connection.execute("PRAGMA integrity_check")]
            problems += [Problem(None, printable(message)) for message in messages if message != "ok"]
            for row in table.select_by_number(self._database):
                try:
                    record = decode(row)
                    message = None if also is None else also(record)
                except FormatError as error:
                    message = str(table.damaged(row.request_id, error))
                if message is not None:
                    problems.append(Problem(row.request_id, message))
        except BusyError:
            raise
        except StoreError as error:
            problems.append(Problem(None, f"{error}; what follows could not be read"))
        return problems

    def close(self) -> None:
        """Close the file; every other method raises StoreError from then on."""
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Store {printable(str(self.path))}>"


def _refusal(connection: sqlite3.Connection, row: Row, replace: bool) -> StoreError | None:
    try:
        table.put(connection, row, replace)
    except StoreError as error:
        return error
    return None
