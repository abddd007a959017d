"""Storing in the background, so that serving a request does not wait for the disk."""

from __future__ import annotations

import os
import threading
from collections import deque
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Final, Literal

from difftrace.core.errors import BusyError, RecordError, StoreError
from difftrace.core.text import printable
from difftrace.store import shutdown
from difftrace.store.database import Durability
from difftrace.store.record import Record
from difftrace.store.store import Store

Overflow = Literal["block", "drop"]

# Records committed at once. Encoding them takes a tenth of a second, which a flush may have to wait for twice.
_BATCH: Final = 256


@dataclass(frozen=True)
class WriterCounters:
    """What became of the records given to a writer; queued = written + rejected + pending.

    Attributes:
        queued: taken by `put`.
        written: stored durably, those that were there already included.
        rejected: not stored because a different record has the request id.
        pending: waiting, or given up after an error of the disk.
        dropped: not taken by `put`, because the queue was full.
    """

    queued: int
    written: int
    rejected: int
    pending: int
    dropped: int


class BackgroundWriter:
    """A thread that stores records in the file `path`, many in one transaction.

    `put` returns when a record is queued, which promises nothing. `flush` returns when everything queued before is
    stored as durably as by `Store.put`: only that acknowledges it. `close`, leaving the `with` block, the end of the
    interpreter and SIGTERM (see below) flush as well. Killed otherwise, the process loses what was not acknowledged.

    SIGTERM: while writers are open, their queues are written first and then the handler that was there is called,
    or the process ended as it would have been. For that a writer has to be opened in the main thread; one opened in
    another leaves the signal alone. Nothing is done where SIGTERM is ignored, nor where an event loop handles it
    (`loop.add_signal_handler`): let its handler stop the loop, and close the writer then.

    When the disk fails, the writer gives up: `put`, `flush` and `close` raise the error each time, and `unwritten`
    holds what was queued and not stored. Waiting for another process that writes is no failure. A record whose request
    id is taken by a different one is rejected and counted, the others are stored, and the next `flush` or `close`
    raises ConflictError.

    A forked child must open a writer of its own; what was queued is written by the parent.

    Args:
        path: the store's file, created where missing.
        capacity: records that may wait.
        overflow: what `put` does when so many wait: wait too, or drop the new record and count it.
        on_sigterm: whether SIGTERM is to be handled.
        durability: as of `Store`.

    Raises:
        StoreError: the store cannot be opened.
        RecordError: an argument makes no sense.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        capacity: int = 1024,
        overflow: Overflow = "block",
        on_sigterm: bool = True,
        durability: Durability = "power",
    ) -> None:
        if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1:
            raise RecordError(f"capacity is {capacity!r}; it must be an integer of at least 1")
        if overflow not in ("block", "drop"):
            raise RecordError(f'overflow is {overflow!r}; it must be "block" or "drop"')
        # A handle of its own, which nobody can close under it.
        self._store = Store(path, durability=durability)
        self._capacity = capacity
        self._overflow = overflow
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Record, bool]] = deque()
        self._queued = self._written = self._rejected = self._dropped = 0
        self._reported = 0
        self._first_refusal: StoreError | None = None
        self._failure: StoreError | None = None
        self._closing = False
        self._disowned = False
        self._thread = threading.Thread(target=self._run, name="difftrace-writer", daemon=True)
        self._thread.start()
        shutdown.register(self, on_sigterm)

    def put(self, record: Record, *, replace: bool = False) -> bool:
        """Queue `record`, to be stored as by `Store.put`; return False where it was dropped instead.

        Raises:
            StoreError: an earlier record could not be written, or the writer is closed; `record` is not queued.
        """
        if not isinstance(record, Record):
            raise RecordError(f"a writer stores records, not {type(record).__name__}")
        with self._changed:
            if self._overflow == "block":
                self._changed.wait_for(lambda: len(self._waiting) < self._capacity or self._stopped)
            self._raise_if_failed()
            if self._closing:
                raise StoreError(f"{self._where}: this writer has been closed; open another one")
            if len(self._waiting) >= self._capacity:
                self._dropped += 1
                return False
            self._waiting.append((record, replace))
            self._queued += 1
            self._changed.notify_all()
        return True

    def flush(self, timeout: float | None = None) -> None:
        """Return when everything queued before is stored durably.

        Args:
            timeout: seconds to wait at most; None waits as long as it takes.

        Raises:
            StoreError: it is not stored: the disk failed, or `timeout` passed.
            ConflictError: all is stored but records whose request id is taken by a different one; said once.
        """
        with self._changed:
            queued = self._queued
            self._changed.wait_for(lambda: self._done >= queued or self._failure is not None, timeout)
            self._raise_if_failed()
            if self._done < queued:
                raise StoreError(
                    f"{self._where}: records not stored within {timeout:g} s: {queued - self._done}; they are still"
                    " queued, so flush again"
                )
            self._raise_refusals()

    def close(self) -> None:
        """Store what is queued, then end; closing twice is nothing.

        Raises:
            StoreError: as by `flush`.
        """
        if self._disowned:
            return
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        shutdown.unregister(self)
        self._store.close()
        with self._changed:
            self._raise_if_failed()
            self._raise_refusals()

    @property
    def counters(self) -> WriterCounters:
        """What became of the records so far."""
        with self._changed:
            return WriterCounters(self._queued, self._written, self._rejected, len(self._waiting), self._dropped)

    @property
    def pending(self) -> int:
        """Records that are queued and not yet stored."""
        return len(self._waiting)

    @property
    def unwritten(self) -> list[Record]:
        """The records that are queued and not stored; after an error of the disk, those that never will be."""
        with self._changed:
            return [record for record, _ in self._waiting]

    def disown(self) -> None:
        """Leave everything to the process that opened the writer; called in forked children."""
        # The thread that held the lock may not exist here.
        self._changed = threading.Condition()
        self._waiting.clear()
        self._disowned = True
        self._failure = StoreError(
            f"{self._where}: this writer belongs to the process that opened it; open another one after the fork"
        )

    def __enter__(self) -> BackgroundWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _where(self) -> str:
        return printable(str(self._store.path))

    @property
    def _done(self) -> int:
        return self._written + self._rejected

    @property
    def _stopped(self) -> bool:
        return self._closing or self._failure is not None

    def _raise_if_failed(self) -> None:
        if self._failure is not None:
            lost = f"; queued records not stored: {len(self._waiting)}, see unwritten" if self._waiting else ""
            raise StoreError(f"{self._failure}{lost}") from self._failure

    def _raise_refusals(self) -> None:
        refused, first = self._rejected - self._reported, self._first_refusal
        self._reported, self._first_refusal = self._rejected, None
        if first is not None:
            raise type(first)(f"{self._where}: records refused: {refused}; the first: {first}")

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                self._finish(self._stored(batch))
        except StoreError as error:
            self._fail(error)
        except BaseException as error:
            failure = StoreError(f"{self._where}: the background writer failed ({type(error).__name__}: {error})")
            failure.__cause__ = error
            self._fail(failure)

    def _next_batch(self) -> list[tuple[Record, bool]]:
        """Wait for records; an empty list says that there will be none. They stay in the queue until stored."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            return list(islice(self._waiting, _BATCH))

    def _stored(self, batch: list[tuple[Record, bool]]) -> list[StoreError | None]:
        while True:
            try:
                return self._store.put_each(batch)
            except BusyError:
                # When the process is to end, waiting for ever for another one is no help.
                if self._closing:
                    raise

    def _finish(self, refusals: list[StoreError | None]) -> None:
        with self._changed:
            for refusal in refusals:
                self._waiting.popleft()
                if refusal is None:
                    self._written += 1
                else:
                    self._rejected += 1
                    self._first_refusal = self._first_refusal or refusal
            self._changed.notify_all()

    def _fail(self, error: StoreError) -> None:
        with self._changed:
            self._failure = error
            self._changed.notify_all()
