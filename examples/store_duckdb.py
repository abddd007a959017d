"""A million stored trajectories, exported as Parquet and questioned with DuckDB.

    pip install "pytest-difftrace[parquet]" duckdb
    python examples/store_duckdb.py [--trajectories N] [--folder FOLDER]

A service has answered 2,000 different requests (a prompt and a seed) again and again for a month, with two models.
Every answer was stored. A rerun of the same request should decide the same; the example asks the export which ones
did not, reads the trajectories of one of them to find the step where they part, and takes those requests back into a
small store of their own. The data are made up: 2,000 random trajectories, repeated, of which a few go wrong.

With a million, on two cores of an AMD EPYC that others used too: storing 12 minutes, exporting 3 (both check and
digest every trajectory); 1,778 bytes each in the store, 956 in Parquet; DuckDB's answers 0.04, 0.14 and 0.16 s;
finding and comparing two trajectories 1 s; taking 50,000 back into a store, everything verified, 29 s.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from itertools import islice
from pathlib import Path

import duckdb
import numpy as np

from difftrace import Trajectory, compare
from difftrace.store import Record, Store, export_parquet, import_parquet

VOCABULARY, MASK = 126464, 126336
LENGTH, STEPS = 128, 64
REQUESTS = 2000
MODELS = ("LLaDA-8B-Instruct", "LLaDA-1.5")
FIRST = datetime(2026, 3, 1, tzinfo=timezone.utc)
MONTH_SECONDS = 31 * 24 * 3600

USAGE = """
    SELECT model, count(*) AS answers, round(avg(num_steps), 1) AS steps, sum(num_events) AS tokens
    FROM runs GROUP BY model ORDER BY model"""

BUSIEST = """
    SELECT strftime(created_at AT TIME ZONE 'UTC', '%Y-%m-%d') AS day, count(*) AS answers
    FROM runs GROUP BY day ORDER BY answers DESC, day LIMIT 3"""

UNSTEADY = """
    SELECT metadata->>'$.request' AS request, count(*) AS answers, count(DISTINCT trajectory_digest) AS different
    FROM runs GROUP BY request HAVING different > 1 ORDER BY request"""

PARTED = """
    SELECT arg_min(trajectory, created_at) AS trajectory, arg_min(request_id, created_at) AS request_id,
        count(*) AS answers
    FROM runs WHERE metadata->>'$.request' = ? GROUP BY trajectory_digest ORDER BY answers DESC"""


def random_trajectory(number: int) -> Trajectory:
    """128 masks after a prompt of 100, each committed once at a uniformly drawn step."""
    rng = np.random.default_rng(number)
    prompt = rng.integers(0, VOCABULARY, 100)
    return Trajectory(
        prompt=prompt,
        initial=np.concatenate((prompt, np.full(LENGTH, MASK))),
        steps=rng.integers(0, STEPS, LENGTH),
        positions=np.arange(100, 100 + LENGTH),
        tokens=rng.integers(0, VOCABULARY, LENGTH),
        num_steps=STEPS,
    )


def gone_wrong(good: Trajectory) -> Trajectory:
    """The same run with another token at the first event from step 40 on."""
    tokens = good.tokens.copy()
    tokens[int(good.steps.searchsorted(40))] += 1
    return Trajectory(good.prompt, good.initial, good.steps, good.positions, tokens, good.num_steps)


def answers(count: int) -> Iterator[Record]:
    """What the service stored: about one answer in ten thousand is not what the same request gave before."""
    good = [random_trajectory(number) for number in range(min(REQUESTS, count))]
    for number in range(count):
        request = number % REQUESTS
        wrong = number % 9_973 == 4_321
        trajectory = gone_wrong(good[request]) if wrong else good[request]
        yield Record(
            f"{MODELS[request % 2]}/{number:07}",
            trajectory,
            output=trajectory.final[100:],
            model=MODELS[request % 2],
            metadata={"request": f"request-{request:04}", "seed": request},
            created_at=FIRST + timedelta(seconds=number * MONTH_SECONDS / count),
        )


def fill(file: Path, count: int) -> None:
    """Store the answers, a thousand a commit."""
    records = answers(count)
    with Store(file) as store:
        while some := list(islice(records, 1000)):
            store.put_many(some)


def export(file: Path, parquet: Path) -> int:
    """Write them as Parquet, each checked."""
    with Store(file, read_only=True) as store:
        return export_parquet(store, parquet)


def ask(connection: duckdb.DuckDBPyConnection, question: str) -> list[tuple[object, ...]]:
    """Print and return what DuckDB answers."""
    rows = connection.execute(question).fetchall()
    for row in rows[:5]:
        print("   ", *row)
    if len(rows) > 5:
        print(f"    … {len(rows) - 5} more")
    return rows


def where_they_part(connection: duckdb.DuckDBPyConnection, request: str) -> str:
    """Compare what a request usually gave with what it gave once, decision by decision."""
    usual, other, *_ = connection.execute(PARTED, [request]).fetchall()
    parted = compare(Trajectory.from_bytes(usual[0]), Trajectory.from_bytes(other[0]))
    if parted is None:
        raise SystemExit("two trajectories of different digests are equal")
    place = f"{other[1]}: step {parted.step}, position {parted.position}"
    print(f"    {place}: token {parted.observed} where it usually is {parted.golden}")
    return place


def take_back(connection: duckdb.DuckDBPyConnection, folder: Path) -> int:
    """Bring the answers to the unsteady requests into a store of their own."""
    part = folder / "unsteady.parquet"
    chosen = f"SELECT * FROM runs WHERE metadata->>'$.request' IN (SELECT request FROM ({UNSTEADY}))"
    connection.sql(chosen).write_parquet(str(part))
    with Store(folder / "unsteady.difftrace") as store:
        changes = import_parquet(store, part)
        assert store.verify_all() == []
    print(f"    {changes.added} answers, all verified")
    return changes.added


def timed(what: str, action: Callable[[], object]) -> None:
    """Say what is done and how long it took."""
    print(f"{what} …", flush=True)
    start = time.perf_counter()
    action()
    print(f"    {time.perf_counter() - start:.2f} s", flush=True)


def main() -> None:
    """Run the example in a folder that is removed afterwards, or in the given one."""
    parser = argparse.ArgumentParser(description="Stored trajectories, exported and questioned with DuckDB.")
    parser.add_argument("--trajectories", type=int, default=1_000_000, metavar="N", help="at least 5,000 show all")
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="keep the files there")
    options = parser.parse_args()
    count = options.trajectories
    with tempfile.TemporaryDirectory() as scratch, duckdb.connect() as connection:
        folder = options.folder if options.folder is not None else Path(scratch)
        file, parquet = folder / "runs.difftrace", folder / "runs.parquet"
        timed(f"storing {count:,} trajectories", lambda: fill(file, count))
        timed("exporting them as Parquet", lambda: export(file, parquet))
        print(f"    store {file.stat().st_size / count:.0f}, Parquet {parquet.stat().st_size / count:.0f} bytes each")
        connection.read_parquet(str(parquet)).create_view("runs")
        timed("answers, steps and tokens by model", lambda: ask(connection, USAGE))
        timed("the busiest days", lambda: ask(connection, BUSIEST))
        timed("requests that did not always decide the same", lambda: ask(connection, UNSTEADY))
        unsteady = connection.execute(UNSTEADY).fetchone()
        if unsteady is None:
            print("all requests decided the same each time")
            return
        timed(f"where {unsteady[0]} parts", lambda: where_they_part(connection, unsteady[0]))
        timed("taking the unsteady requests back into a store", lambda: take_back(connection, folder))


if __name__ == "__main__":
    main()
