"""How fast trajectories are stored durably and read back, and what they take on the disk.

    python benchmarks/store.py [--trajectories N] [--rounds N] [--folder FOLDER] [--json FILE]

Random trajectories of LLaDA's vocabulary: 128 positions after a prompt of 100, each committed once in 64 steps, kept
with the 128 tokens served, a model name and three metadata. Every round uses new ones and a new file; a figure is the
median over the rounds of the time per trajectory. Everything counts that storing and reading take: encoding, digests,
SQLite and the disk, which has confirmed every commit but those with `durability="process"`: these have been handed to
the system, and survive a kill of the process. 500 µs are 2,000 trajectories a second, the target of storing and of
reading; a commit for each that the disk has confirmed depends on the disk, and is there for reference. Exit status 1 if
a target is missed.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _harness import Figure, count, describe_machine, report

from difftrace.core.trajectory import Trajectory
from difftrace.store import BackgroundWriter, Record, Store

VOCABULARY = 126464
MASK = 126336
PROMPT, LENGTH, STEPS = 100, 128, 64

MOST_MICROSECONDS = 500.0
COMMIT = 100


def random_records(count: int, seed: int) -> list[Record]:
    """Return `count` new records; nothing about them has been computed yet."""
    rng = np.random.default_rng(seed)
    records = []
    for number in range(count):
        prompt = rng.integers(0, VOCABULARY, PROMPT)
        tokens = rng.integers(0, VOCABULARY, LENGTH)
        trajectory = Trajectory(
            prompt=prompt,
            initial=np.concatenate((prompt, np.full(LENGTH, MASK))),
            steps=rng.integers(0, STEPS, LENGTH),
            positions=np.arange(PROMPT, PROMPT + LENGTH),
            tokens=tokens,
            num_steps=STEPS,
        )
        metadata = {"tenant": f"tenant-{number % 7}", "temperature": 0.5, "cached": False}
        records.append(Record(f"{seed}/{number}", trajectory, tokens, "GSAI-ML/LLaDA-8B-Instruct", metadata))
    return records


def put_one_by_one(store: Store, records: list[Record]) -> None:
    """A commit for each."""
    for record in records:
        store.put(record)


def put_to_the_system(store: Store, records: list[Record]) -> None:
    """A commit for each, which the system has and the disk will get."""
    with Store(store.path, durability="process") as quicker:
        put_one_by_one(quicker, records)


def put_by_the_hundred(store: Store, records: list[Record]) -> None:
    """A commit for every hundred."""
    for start in range(0, len(records), COMMIT):
        store.put_many(records[start : start + COMMIT])


def put_in_the_background(store: Store, records: list[Record]) -> None:
    """As a serving process does it, until the flush at the end has returned."""
    with BackgroundWriter(store.path) as writer:
        for record in records:
            writer.put(record)
        writer.flush()


def get_each(store: Store, records: list[Record]) -> None:
    """By request id, in another order than stored."""
    for record in reversed(records):
        store.get(record.request_id)


def read_all(store: Store, records: list[Record]) -> None:
    """In order, checked as by get."""
    if sum(1 for _ in store.records()) != len(records):
        raise SystemExit("not every record is there")


def list_all(store: Store, records: list[Record]) -> None:
    """Without the trajectories."""
    if sum(1 for _ in store.entries()) != len(records):
        raise SystemExit("not every record is there")


def encode_all(_: object, records: list[Record]) -> None:
    """What every way to store has to do."""
    for record in records:
        record.trajectory.to_bytes()


def bare_commits(folder: Path, count: int) -> float:
    """Return the seconds that SQLite and the disk need for `count` commits of one number each."""
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE t (number INTEGER)")
    start = time.perf_counter()
    for number in range(count):
        connection.execute("INSERT INTO t VALUES (?)", (number,))
    seconds = time.perf_counter() - start
    connection.close()
    return seconds


def measure(folder: Path, count: int, rounds: int) -> list[Figure]:
    """Return the figures, in microseconds per trajectory unless they say otherwise."""
    writing: dict[str, Callable[[Store, list[Record]], None]] = {
        "put, a commit each": put_one_by_one,
        "put, a commit each, durability process": put_to_the_system,
        f"put_many, {COMMIT} a commit": put_by_the_hundred,
        "background writer, flush included": put_in_the_background,
    }
    reading: dict[str, Callable[[Store, list[Record]], None]] = {
        "get": get_each,
        "records(), all in order": read_all,
        "entries(), all in order": list_all,
    }
    found: dict[str, list[float]] = {}
    for turn in range(rounds):
        for place, (name, action) in enumerate(writing.items()):
            with (
                tempfile.TemporaryDirectory(dir=folder) as scratch,
                Store(Path(scratch) / "runs.difftrace") as store,
            ):
                records = random_records(count, 10 * turn + place)
                found.setdefault(name, []).append(seconds(action, store, records) / count)
                if action is put_by_the_hundred:
                    for other, read in reading.items():
                        found.setdefault(other, []).append(seconds(read, store, records) / count)
                    store.vacuum()
                    found.setdefault("size", []).append(store.path.stat().st_size / count)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            found.setdefault("bare", []).append(bare_commits(Path(scratch), count) / count)
        new = random_records(count, 10 * turn + 9)
        found.setdefault("encode", []).append(seconds(encode_all, None, new) / count)
    middle = {name: statistics.median(values) for name, values in found.items()}
    without_target = {"put, a commit each", "records(), all in order", "entries(), all in order"}
    figures = []
    for name in (*writing, *reading):
        most = None if name in without_target else MOST_MICROSECONDS
        figures.append(Figure(name, middle[name] * 1e6, "µs", at_most=most))
        figures.append(Figure("  a second", 1 / middle[name]))
    return [
        *figures,
        Figure("Trajectory.to_bytes() alone", middle["encode"] * 1e6, "µs"),
        Figure("a commit of SQLite's alone", middle["bare"] * 1e6, "µs"),
        Figure("file, bytes per trajectory", middle["size"], "bytes"),
    ]


def seconds(action: Callable[..., object], store: Store | None, records: list[Record]) -> float:
    """Return how long `action` takes."""
    start = time.perf_counter()
    action(store, records)
    return time.perf_counter() - start


def main() -> int:
    """Print the figures; return the exit status."""
    parser = argparse.ArgumentParser(description="Trajectories stored and read back a second.")
    parser.add_argument("--trajectories", type=count, default=2000, metavar="N", help="stored in each round")
    parser.add_argument("--rounds", type=count, default=5, metavar="N")
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="on the disk to measure (default: the system's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    options = parser.parse_args()
    folder = options.folder if options.folder is not None else Path(tempfile.gettempdir())
    figures = measure(folder, options.trajectories, options.rounds)
    settings = {"trajectories": options.trajectories, "rounds": options.rounds, "positions": LENGTH, "steps": STEPS}
    machine = {**describe_machine(), "numpy": np.__version__, "sqlite": sqlite3.sqlite_version}
    return report("store", settings, figures, machine, options.json)


if __name__ == "__main__":
    sys.exit(main())
