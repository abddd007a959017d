"""Threads, forks, several handles, and disks that fail."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest

from difftrace.core.errors import BusyError, StoreError
from difftrace.store import Record, Store

Make = Callable[..., Record]
Finish = Callable[..., "subprocess.CompletedProcess[str]"]

posix = pytest.mark.skipif(os.name != "posix", reason="forks, limits and users of POSIX")


@pytest.mark.parametrize(("durability", "level"), [("power", 2), ("process", 1)])
def test_a_commit_waits_for_what_was_asked_for(path: Path, durability: Literal["power", "process"], level: int) -> None:
    with Store(path, durability=durability) as store, store._database.reading() as connection:
        # 2 is FULL, which waits for the disk at each commit, 1 is NORMAL, which does not.
        assert connection.execute("PRAGMA synchronous").fetchone() == (level,)


def test_another_durability_is_refused(path: Path) -> None:
    with pytest.raises(StoreError, match='durability is \'none\'; it must be "power" or "process"'):
        Store(path, durability="none")  # type: ignore[arg-type]
    assert not path.exists()


def test_threads_share_one_store(store: Store, make_record: Make) -> None:
    def work(thread: int) -> None:
        for number in range(thread * 20, thread * 20 + 20):
            store.put(make_record(number))
            assert store.get(f"request/{number}") == make_record(number)

    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(work, range(4)))
    assert store.count() == 80
    assert store.verify_all() == []


def test_a_reader_sees_what_is_committed_while_another_writes(store: Store, path: Path, make_record: Make) -> None:
    store.put(make_record(0))
    with Store(path, read_only=True) as reader:
        with store._database.writing() as connection:
            connection.execute("DELETE FROM record")
            assert reader.count() == 1
        assert reader.count() == 0


def test_a_writer_that_waited_too_long_says_so_and_can_try_again(path: Path, store: Store, make_record: Make) -> None:
    with Store(path, timeout=0) as impatient:
        with store._database.writing(), pytest.raises(BusyError, match="kept it locked for 0 s; try again"):
            impatient.put(make_record())
        assert impatient.put(make_record()) is True


@pytest.fixture
def short_log(monkeypatch: pytest.MonkeyPatch) -> int:
    """The size in bytes, about, at which the log is now copied."""
    monkeypatch.setattr("difftrace.store.database._LOG_PAGES", 50)
    return 50 * 8192


def test_the_log_stays_short_however_much_is_stored(
    store: Store, path: Path, make_record: Make, short_log: int
) -> None:
    for number in range(100):
        store.put(make_record(number))
    for start in range(100, 1000, 300):
        store.put_many([make_record(number) for number in range(start, start + 300)])
    assert path.with_name(f"{path.name}-wal").stat().st_size < 3 * short_log
    # What was stored has reached the file.
    assert path.stat().st_size > 500_000


def test_large_records_do_not_make_the_log_long(store: Store, path: Path, make_record: Make, short_log: int) -> None:
    for number in range(10):
        store.put(make_record(number, output=range(100_000)))
    assert path.with_name(f"{path.name}-wal").stat().st_size < 3 * short_log


def test_a_reader_that_holds_on_to_the_log_stops_nobody(
    store: Store, path: Path, make_record: Make, short_log: int
) -> None:
    log = path.with_name(f"{path.name}-wal")
    store.put(make_record(0))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM record").fetchone() == (1,)
        for number in range(1, 60):
            store.put(make_record(number))
        assert reader.execute("SELECT count(*) FROM record").fetchone() == (1,)
        grown = log.stat().st_size
    assert grown > 3 * short_log
    for number in range(60, 150):
        store.put(make_record(number))
    assert log.stat().st_size < grown + 2 * short_log
    assert store.count() == 150
    assert store.verify_all() == []


def test_the_log_is_copied_only_by_the_one_who_may_write(store: Store, path: Path) -> None:
    """SQLite before 3.51.3 can lose a commit that meets the copying; it never happens by itself here."""
    with store._database.reading() as connection:
        assert connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
        seen: list[str] = []
        connection.set_trace_callback(seen.append)
        store._database._copy_log(connection)
        connection.set_trace_callback(None)
    assert seen == ["BEGIN IMMEDIATE", "ROLLBACK"]
    with (
        Store(path, timeout=0) as other,
        other._database.reading() as connection,
        store._database.writing(),
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        other._database._copy_log(connection)


def test_a_failing_transaction_is_undone(store: Store, make_record: Make) -> None:
    store.put(make_record(0))

    def fail() -> None:
        with store._database.writing() as connection:
            connection.execute("DELETE FROM record")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert store.count() == 1
    assert store.put(make_record(1)) is True


def test_a_read_only_store_refuses_to_write(path: Path, make_record: Make) -> None:
    with Store(path) as store:
        store.put(make_record())
    with Store(path, read_only=True) as store:
        assert store.get("request/0") == make_record()
        for write in (
            lambda: store.put(make_record(1)),
            lambda: store.delete("request/0"),
            store.vacuum,
        ):
            with pytest.raises(StoreError, match="it was opened with read_only=True"):
                write()
        assert store.verify_all() == []


def test_a_full_disk_is_an_error_and_nothing_is_half_stored(path: Path, make_record: Make) -> None:
    with Store(path) as store:
        store.put(make_record(0))
        with store._database.reading() as connection:
            connection.execute("PRAGMA max_page_count = 10")
        with pytest.raises(StoreError, match=r"runs\.difftrace: .*full; free space on its disk"):
            store.put_many([make_record(number) for number in range(1, 500)])
        assert store.count() == 1
        with store._database.reading() as connection:
            connection.execute("PRAGMA max_page_count = 100000")
        store.put_many([make_record(number) for number in range(1, 500)])
        assert store.verify_all() == []


@posix
def test_a_write_that_fails_is_an_error_and_what_was_stored_stays(path: Path, finish: Finish) -> None:
    done = finish(
        """
import resource, sys
from records import make_record
from difftrace.core.errors import StoreError
from difftrace.store import Store

store = Store(sys.argv[1])
stored = 0
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
try:
    while True:
        store.put(make_record(stored))
        stored += 1
except StoreError as error:
    print(stored, error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.put(make_record(stored))
print(store.count())
""",
        str(path),
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    stored = int(first.split()[0])
    assert stored > 10
    assert "free space on its disk" in first
    assert int(second) == stored + 1
    with Store(path) as store:
        assert store.verify_all() == []
        assert store.count() == stored + 1


@posix
def test_a_connection_does_not_cross_a_fork(path: Path, finish: Finish) -> None:
    """The child writes after the parent has closed: with an inherited connection its record would be lost."""
    done = finish(
        """
import os, sys
from records import make_record
from difftrace.store import Store

store = Store(sys.argv[1])
store.put(make_record(0))
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    store.put(make_record(1))
    os.read(reading, 1)
    store.put(make_record(2))
    os._exit(0)
while "request/1" not in store:
    pass
store.close()
os.write(writing, b"x")
assert os.waitpid(child, 0)[1] == 0
with Store(sys.argv[1]) as again:
    print(sorted(entry.request_id for entry in again.entries()), again.verify_all())
""",
        str(path),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['request/0', 'request/1', 'request/2'] []\n"


@posix
def test_a_fork_waits_for_the_transactions_of_other_threads(path: Path, finish: Finish) -> None:
    done = finish(
        """
import os, sys, threading, warnings
from records import make_record
from difftrace.store import Store

warnings.simplefilter("ignore")
store = Store(sys.argv[1])
numbers = iter(range(10**9))
stop = threading.Event()
# A fork in the middle of a thread's import leaves that import locked in the child, whatever is imported.
make_record(0).trajectory.to_bytes()

def work():
    while not stop.is_set():
        store.put(make_record(next(numbers)))

threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
for turn in range(10):
    child = os.fork()
    if child == 0:
        store.put(make_record(turn, f"child/{turn}"))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
assert store.count() == next(numbers) + 10, store.count()
print(store.verify_all())
""",
        str(path),
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_several_processes_create_one_store(path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    program = (
        "import sys; from records import make_record; from difftrace.store import Store; record = make_record(3);"
        " print('ready', flush=True); input(); store = Store(sys.argv[1]); print(store.put(record))"
    )
    processes = [start(program, str(path)) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate(timeout=60) for process in processes]
    assert sorted(output for output, _ in results) == ["False\n"] * 3 + ["True\n"], results


@posix
def test_a_store_in_a_folder_that_cannot_be_written_can_be_read(path: Path, make_record: Make, finish: Finish) -> None:
    with Store(path) as store:
        store.put(make_record())
    # Root may write everywhere, so it becomes somebody else first. pytest's folders are closed to others.
    for folder in path.parents:
        if folder.is_relative_to(tempfile.gettempdir()) and folder.owner() == path.owner():
            folder.chmod(folder.stat().st_mode | 0o555)
    path.parent.chmod(0o555)
    done = finish(
        "import os, pathlib, sys, records\n"
        "from difftrace.store import Store\n"
        # What these import when first used may lie where only root can read.
        "records.make_record(), pathlib.Path('/').as_uri()\n"
        "if os.getuid() == 0: os.setgid(65534), os.setuid(65534)\n"
        "with Store(sys.argv[1], read_only=True) as store: print(store.get('request/0') == records.make_record())\n",
        str(path),
    )
    path.parent.chmod(0o755)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_nothing_needs_a_newer_sqlite_than_old_systems_bring() -> None:
    """RHEL 9 and Debian 11 bring 3.34."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        from difftrace.store import schema

        for statements in schema.MIGRATIONS:
            for statement in statements:
                assert "STRICT" not in statement
                assert "RETURNING" not in statement
                connection.execute(statement)


def test_an_interpreter_with_an_ancient_sqlite_is_told_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 7, 17))
    with pytest.raises(StoreError, match=r"a store needs 3\.24 or newer"):
        Store(path)
