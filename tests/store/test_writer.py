from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from difftrace.core.errors import BusyError, ConflictError, RecordError, StoreError
from difftrace.store import BackgroundWriter, Record, Store, WriterCounters

Make = Callable[..., Record]


@pytest.fixture
def writer(path: Path) -> Iterator[BackgroundWriter]:
    with BackgroundWriter(path, capacity=8) as opened:
        yield opened


class Gate:
    """Holds the writer's thread before each transaction until opened, or makes it fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Semaphore(0)
        self._passes = threading.Semaphore(0)
        self._error: BaseException | None = None
        put_each = Store.put_each

        def held(store: Store, records: Any) -> Any:
            self.reached.release()
            self._passes.acquire()
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            return put_each(store, records)

        monkeypatch.setattr(Store, "put_each", held)

    def open(self, times: int = 1000) -> None:
        self._passes.release(times)

    def fail(self, error: BaseException) -> None:
        self._error = error
        self._passes.release()


def waiting_in(writer: BackgroundWriter, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """An event that tells when a thread starts to wait for the writer; the writer's own thread must be held."""
    event, wait_for = threading.Event(), writer._changed.wait_for

    def watched(predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        if not predicate():
            event.set()
        return wait_for(predicate, timeout)

    monkeypatch.setattr(writer._changed, "wait_for", watched)
    return event


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(monkeypatch)
    yield made
    made.open()


def test_what_is_flushed_is_stored(writer: BackgroundWriter, path: Path, make_record: Make) -> None:
    for number in range(20):
        assert writer.put(make_record(number)) is True
    writer.flush()
    assert writer.counters == WriterCounters(queued=20, written=20, rejected=0, pending=0, dropped=0)
    with Store(path, read_only=True) as store:
        assert [store.get(f"request/{number}") for number in range(20)] == [make_record(number) for number in range(20)]


def test_closing_flushes(path: Path, make_record: Make) -> None:
    with BackgroundWriter(path) as writer:
        writer.put(make_record())
    writer.close()
    assert writer.counters.written == 1
    with Store(path) as store:
        assert store.get("request/0") == make_record()


def test_a_closed_writer_takes_nothing_and_has_nothing_to_flush(writer: BackgroundWriter, make_record: Make) -> None:
    writer.close()
    writer.flush()
    with pytest.raises(StoreError, match=r"runs\.difftrace: this writer has been closed"):
        writer.put(make_record())


def test_records_are_stored_in_the_order_they_were_queued(
    writer: BackgroundWriter, path: Path, make_record: Make
) -> None:
    writer.put(make_record(1, "a"))
    writer.put(make_record(2, "a"), replace=True)
    writer.put(make_record(3, "a"), replace=True)
    writer.flush()
    with Store(path) as store:
        assert store.get("a") == make_record(3, "a")


def test_many_records_share_a_transaction(
    path: Path, make_record: Make, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    held = Store.put_each

    def counted(store: Store, records: Any) -> Any:
        batches.append(len(records))
        return held(store, records)

    monkeypatch.setattr(Store, "put_each", counted)
    with BackgroundWriter(path, capacity=600) as writer:
        writer.put(make_record())
        gate.reached.acquire()
        for number in range(1, 300):
            writer.put(make_record(number))
        gate.open()
        writer.flush()
    assert batches == [1, 256, 43]


def test_a_full_queue_makes_put_wait_by_default(
    writer: BackgroundWriter, make_record: Make, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        writer.put(make_record(number))
    gate.reached.acquire()
    waits = waiting_in(writer, monkeypatch)
    waiting = threading.Thread(target=writer.put, args=[make_record(8)])
    waiting.start()
    assert waits.wait(timeout=30)
    assert writer.counters.queued == 8
    gate.open()
    waiting.join()
    writer.flush()
    assert writer.counters == WriterCounters(queued=9, written=9, rejected=0, pending=0, dropped=0)


def test_a_full_queue_can_drop_instead_and_counts_it(path: Path, make_record: Make, gate: Gate) -> None:
    with BackgroundWriter(path, capacity=3, overflow="drop") as writer:
        taken = [writer.put(make_record(number)) for number in range(5)]
        assert taken == [True, True, True, False, False]
        assert writer.counters == WriterCounters(queued=3, written=0, rejected=0, pending=3, dropped=2)
        gate.open()
        writer.flush()
        assert writer.put(make_record(9)) is True
    assert writer.counters == WriterCounters(queued=4, written=4, rejected=0, pending=0, dropped=2)
    with Store(path) as store:
        assert sorted(entry.request_id for entry in store.entries()) == [f"request/{n}" for n in (0, 1, 2, 9)]


def test_flush_waits_for_what_was_queued_before_and_no_longer(
    path: Path, make_record: Make, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BackgroundWriter(path) as writer:
        writer.put(make_record(0))
        gate.reached.acquire()
        waits = waiting_in(writer, monkeypatch)
        flushed = threading.Thread(target=writer.flush)
        flushed.start()
        assert waits.wait(timeout=30)
        writer.put(make_record(1))
        gate.open(1)
        flushed.join()
        # The second one is still held.
        gate.reached.acquire()
        assert writer.counters.pending == 1
        gate.open()


def test_flush_can_give_up_waiting_and_be_tried_again(writer: BackgroundWriter, make_record: Make, gate: Gate) -> None:
    writer.put(make_record())
    with pytest.raises(StoreError, match=r"not stored within 0\.01 s: 1; they are still queued"):
        writer.flush(timeout=0.01)
    gate.open()
    writer.flush()
    assert writer.counters.written == 1


def test_several_threads_use_one_writer(path: Path, make_record: Make) -> None:
    with BackgroundWriter(path, capacity=4) as writer:

        def work(thread: int) -> None:
            for number in range(thread * 25, thread * 25 + 25):
                writer.put(make_record(number))
            writer.flush()

        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(work, range(4)))
        assert writer.counters.written == 100
    with Store(path) as store:
        assert store.count() == 100
        assert store.verify_all() == []


def test_the_same_record_twice_is_written_and_no_error(writer: BackgroundWriter, make_record: Make) -> None:
    writer.put(make_record())
    writer.put(make_record())
    writer.flush()
    assert writer.counters.written == 2


def test_a_different_record_under_the_same_id_is_reported_once_and_the_others_are_stored(
    writer: BackgroundWriter, path: Path, make_record: Make
) -> None:
    writer.put(make_record(1, "a"))
    writer.put(make_record(2, "a"))
    writer.put(make_record(3, "b"))
    with pytest.raises(ConflictError, match=r"records refused: 1; the first: the request id 'a' is taken"):
        writer.flush()
    writer.flush()
    assert writer.counters == WriterCounters(queued=3, written=2, rejected=1, pending=0, dropped=0)
    with Store(path) as store:
        assert store.get("a") == make_record(1, "a")
        assert "b" in store


def test_a_conflict_nobody_flushed_for_is_reported_by_close(path: Path, make_record: Make) -> None:
    writer = BackgroundWriter(path)
    writer.put(make_record(1, "a"))
    writer.put(make_record(2, "a"))
    with pytest.raises(ConflictError, match="'a' is taken"):
        writer.close()
    writer.close()


def test_a_full_disk_is_raised_by_every_later_call_and_nothing_is_forgotten(path: Path, make_record: Make) -> None:
    writer = BackgroundWriter(path)
    writer.put(make_record(0))
    writer.flush()
    with writer._store._database.reading() as connection:
        connection.execute("PRAGMA max_page_count = 10")
    for number in range(1, 200):
        try:
            writer.put(make_record(number))
        except StoreError:
            break
    expected = r"runs\.difftrace: .*full; free space on its disk; queued records not stored: \d+, see unwritten"
    calls: list[Callable[[], object]] = [writer.flush, lambda: writer.put(make_record(999)), writer.flush, writer.close]
    for call in calls:
        with pytest.raises(StoreError, match=expected):
            call()
    counters = writer.counters
    assert counters.queued == counters.written + counters.pending
    assert len(writer.unwritten) == counters.pending > 0
    with Store(path) as store:
        assert store.count() == counters.written
        assert store.verify_all() == []
        # What was kept can be stored once there is room.
        store.put_many(writer.unwritten)
        assert store.count() == counters.queued


def test_a_put_that_waits_learns_of_the_failure(
    writer: BackgroundWriter, make_record: Make, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        writer.put(make_record(number))
    gate.reached.acquire()
    waits = waiting_in(writer, monkeypatch)
    caught: list[BaseException] = []

    def put() -> None:
        try:
            writer.put(make_record(8))
        except StoreError as error:
            caught.append(error)

    waiting = threading.Thread(target=put)
    waiting.start()
    assert waits.wait(timeout=30)
    gate.fail(StoreError("the disk is gone"))
    waiting.join()
    assert "the disk is gone; queued records not stored: 8" in str(caught[0])
    with pytest.raises(StoreError, match="the disk is gone"):
        writer.close()
    # The fixture's close raises it again.
    writer.disown()


def test_waiting_for_another_process_is_no_failure(writer: BackgroundWriter, make_record: Make, gate: Gate) -> None:
    writer.put(make_record())
    gate.reached.acquire()
    gate.fail(BusyError("locked"))
    gate.open()
    writer.flush()
    assert writer.counters.written == 1


def test_any_other_error_in_the_thread_is_raised_too(path: Path, make_record: Make, gate: Gate) -> None:
    writer = BackgroundWriter(path)
    writer.put(make_record())
    gate.fail(MemoryError("no more"))
    with pytest.raises(StoreError, match=r"the background writer failed \(MemoryError: no more\)") as caught:
        writer.flush()
    cause = caught.value.__cause__
    assert cause is not None
    assert isinstance(cause.__cause__, MemoryError)
    with pytest.raises(StoreError):
        writer.close()


def test_a_writer_for_a_file_that_is_no_store_is_refused(path: Path) -> None:
    path.write_bytes(b"something else " * 100)
    before = threading.active_count()
    with pytest.raises(StoreError, match="it is no store or it is damaged"):
        BackgroundWriter(path)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "arguments", [{"capacity": 0}, {"capacity": True}, {"capacity": 1.5}, {"overflow": "wait"}, {"overflow": None}]
)
def test_arguments_that_make_no_sense_are_refused(path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(RecordError, match="it must be"):
        BackgroundWriter(path, **arguments)
    assert not path.exists()


def test_only_records_are_queued(writer: BackgroundWriter, make_record: Make) -> None:
    with pytest.raises(RecordError, match="a writer stores records, not Trajectory"):
        writer.put(make_record().trajectory)  # type: ignore[arg-type]
    assert writer.counters.queued == 0
