"""What was acknowledged survives kill -9 at any moment, and the file stays whole."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from difftrace.store import BackgroundWriter, Record, Store

Make = Callable[..., Record]
Start = Callable[..., "subprocess.Popen[str]"]

# Records by request id; None for a deleted one.
State = dict[str, str | None]


def output_until_killed(process: subprocess.Popen[str], lines: int) -> list[str]:
    """Kill the process as soon as it has said so many lines; return what it had said until then."""
    assert process.stdout is not None
    assert process.stderr is not None
    said = [process.stdout.readline() for _ in range(lines)]
    process.kill()
    # Not communicate(), which misses what readline() has read ahead.
    said += process.stdout.read().splitlines(keepends=True)
    process.wait()
    assert said[lines - 1], process.stderr.read()
    # The last line may have been cut off, which then told nobody anything.
    return [line.removesuffix("\n") for line in said if line.endswith("\n")]


def test_a_killed_process_loses_nothing_acknowledged_and_leaves_no_half_transaction(
    path: Path, start: Start, full: bool
) -> None:
    rng = random.Random(20260301)
    acknowledged: State = {}
    for turn in range(200 if full else 5):
        if turn % 20 == 0:
            path, acknowledged = path.with_name(f"runs-{turn}.difftrace"), {}
        process = start("put_until_killed", str(path), str(turn))
        under_way: State = {}
        for line in output_until_killed(process, rng.randint(1, 24)):
            message = json.loads(line)
            if "done" in message:
                acknowledged |= under_way
            under_way = message.get("will", {})
        with Store(path) as store:
            assert store.verify_all() == []
            found = {record.request_id: record.digest for record in store.records()}
        before = {name: digest for name, digest in acknowledged.items() if digest}
        after = {name: digest for name, digest in (acknowledged | under_way).items() if digest}
        assert found in (before, after)
        acknowledged = dict(found)


@pytest.mark.parametrize("place", ["_version", "_use_write_ahead_log", "_migrate", "_check_objects"])
def test_a_process_killed_while_it_creates_the_store_leaves_a_usable_file(
    path: Path, start: Start, make_record: Make, place: str
) -> None:
    program = (
        "import sys; from difftrace.store import schema, Store\n"
        "def stop(*arguments):\n"
        "    print('now', flush=True); input()\n"
        f"schema.{place} = stop\n"
        "Store(sys.argv[1])\n"
    )
    assert output_until_killed(start(program, str(path)), 1) == ["now"]
    with Store(path) as store:
        assert store.put(make_record()) is True
        assert store.verify_all() == []


def test_a_killed_writer_loses_nothing_it_flushed(path: Path, start: Start, make_record: Make, full: bool) -> None:
    rng = random.Random(20260302)
    for turn in range(200 if full else 5):
        if turn % 20 == 0:
            path = path.with_name(f"runs-{turn}.difftrace")
        process = start("queue_until_killed", str(path), str(turn))
        flushed = int(output_until_killed(process, rng.randint(1, 8))[-1])
        with Store(path) as store:
            assert store.verify_all() == []
            numbers = {
                int(entry.request_id.rpartition("/")[2])
                for entry in store.entries()
                if entry.request_id.startswith(f"{turn}/")
            }
            # In order, and all that was acknowledged among them.
            assert numbers == set(range(len(numbers)))
            assert flushed in numbers
            for number in range(flushed + 1):
                assert store.get(f"{turn}/{number}") == make_record(number, f"{turn}/{number}")


def test_several_processes_store_and_read_at_once(path: Path, start: Start, make_record: Make, full: bool) -> None:
    processes, count = (8, 1000) if full else (4, 100)
    running = [start("store_many", str(path), str(number), str(count)) for number in range(processes)]
    for process in running:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    with Store(path) as store:
        assert store.verify_all() == []
        assert store.count() == processes * count
        for process_number in range(processes):
            for number in range(count):
                request_id = f"process-{process_number}/{number}"
                assert store.get(request_id) == make_record(number, request_id)


def test_a_store_left_by_a_killed_process_can_be_written_on(path: Path, start: Start, make_record: Make) -> None:
    output_until_killed(start("queue_until_killed", str(path), "0"), 1)
    with BackgroundWriter(path) as writer:
        writer.put(make_record(1, "new"))
    with Store(path, read_only=True) as store:
        assert "new" in store
