"""How long ranks take to agree on a run, and to find where they do not.

    python benchmarks/ranks.py [--ranks 1,2,4,8] [--runs N] [--json FILE]

Every rank is a process of this machine, all in one gloo group, and hands over new random trajectories of LLaDA's
vocabulary, 128 positions in 64 steps, whose digests nobody has computed yet. Figures are medians over the runs as rank
0 sees them, from the end of its run until it knows what all decided. In a disagreement the last rank has another token.
What is measured is processes that share the cores: where there are more ranks than cores, most of the time one waits
for its turn. Sizes that would take more memory than there is are left out, and said so.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from _harness import Figure, Scalar, describe_machine, report

from difftrace.core.errors import RankError
from difftrace.core.run import Run
from difftrace.core.trajectory import Trajectory
from difftrace.ranks import agreed, current

VOCABULARY = 126464
MASK = 126336
PROMPT, LENGTH, STEPS = 100, 128, 64
WARM_UP = 5
DISAGREEMENTS = 20

# What one more rank takes: what it does not share with the process that it was forked from, amply.
RANK_BYTES = 150e6


def random_run(seed: int) -> Run:
    """Return a run of one new trajectory."""
    rng = np.random.default_rng(seed)
    prompt = rng.integers(0, VOCABULARY, PROMPT)
    trajectory = Trajectory(
        prompt=prompt,
        initial=np.concatenate((prompt, np.full(LENGTH, MASK))),
        steps=rng.integers(0, STEPS, LENGTH),
        positions=np.arange(PROMPT, PROMPT + LENGTH),
        tokens=rng.integers(0, VOCABULARY, LENGTH),
        num_steps=STEPS,
    )
    return Run((trajectory,))


def seconds(action: Callable[[], object]) -> float:
    """Return how long `action` takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def agree(run: Run) -> None:
    """Compare a run across the ranks."""
    agreed(lambda: run)


def disagree(run: Run) -> None:
    """Compare a run that not every rank has."""
    try:
        agree(run)
    except RankError:
        return
    raise SystemExit("the ranks did not notice that they disagree")


def measure(runs: int) -> dict[str, float]:
    """Return the medians of this rank, in seconds."""
    ranks = current()
    other = int(ranks is not None and ranks.rank == ranks.size - 1)
    # Made beforehand, so that no rank waits for another that still makes its own.
    same = [random_run(seed) for seed in range(WARM_UP + runs)]
    different = [random_run(1000 * turn + other) for turn in range(DISAGREEMENTS)]
    found = {"first": seconds(lambda: agree(random_run(0)))}
    taken = [seconds(lambda run=run: agree(run)) for run in same]
    found["agreement"] = statistics.median(taken[WARM_UP:])
    if ranks is not None:
        found["disagreement"] = statistics.median(seconds(lambda run=run: disagree(run)) for run in different)
        ranks.leave()
    return found


def be_rank(rendezvous: Path, rank: int, size: int, runs: int, result: Path) -> None:
    """Be one rank, in a process of its own; rank 0 writes what it found."""
    torch.set_num_threads(1)
    if size > 1:
        where = f"file://{rendezvous}"
        dist.init_process_group("gloo", init_method=where, rank=rank, world_size=size, timeout=timedelta(minutes=5))
    found = measure(runs)
    if rank == 0:
        result.write_text(json.dumps(found), encoding="utf-8")


def run_ranks(size: int, runs: int) -> dict[str, float]:
    """Start `size` ranks as children of this process, wait for them, and return what rank 0 found."""
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "result.json"
        children = []
        for rank in range(size):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    be_rank(Path(scratch) / "rendezvous", rank, size, runs, result)
                    status = 0
                finally:
                    sys.stderr.flush()
                    os._exit(status)
            children.append(child)
        statuses = [os.waitpid(child, 0)[1] for child in children]
        if any(statuses):
            raise SystemExit(f"{sum(map(bool, statuses))} of {size} ranks failed")
        found: dict[str, float] = json.loads(result.read_text(encoding="utf-8"))
        return found


def free_bytes() -> float:
    """Return the memory that new processes may take; infinite where the system does not say."""
    information = Path("/proc/meminfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return float("inf")


def figures_of(size: int, found: dict[str, float]) -> list[Figure]:
    """Return the lines of one number of ranks."""
    name = f"{size} rank{'' if size == 1 else 's'}"
    if size == 1:
        return [Figure(f"{name}: nothing to agree on", found["agreement"] * 1e6, "µs")]
    return [
        Figure(f"{name}: agreement on a run", found["agreement"] * 1e6, "µs"),
        Figure("  a disagreement, told where", found["disagreement"] * 1e6, "µs"),
        Figure("  the first run, which connects them", found["first"] * 1e6, "µs"),
    ]


def sizes_that_fit(sizes: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the numbers of ranks that the memory has room for, and the others."""
    free = free_bytes()
    return [size for size in sizes if size * RANK_BYTES <= free], [size for size in sizes if size * RANK_BYTES > free]


def main() -> int:
    """Print the figures; return the exit status."""
    parser = argparse.ArgumentParser(description="What it takes ranks to agree on a run.")
    parser.add_argument("--ranks", default="1,2,4,8", metavar="N,N", help="numbers of ranks (default: 1,2,4,8)")
    parser.add_argument("--runs", type=int, default=200, metavar="N", help="compared by each number of ranks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    options = parser.parse_args()
    if not hasattr(os, "fork"):
        parser.error("ranks are forked, which this system cannot")
    sizes, left_out = sizes_that_fit([int(size) for size in options.ranks.split(",")])
    digests = [seconds(lambda run=run: run.trajectories[0].digest) for run in map(random_run, range(options.runs))]
    figures = [
        Figure("a digest alone", statistics.median(digests) * 1e6, "µs"),
        *(one for size in sizes for one in figures_of(size, run_ranks(size, options.runs))),
    ]
    settings: dict[str, Scalar] = {"runs": options.runs, "positions": LENGTH, "steps": STEPS}
    if left_out:
        settings["left out for want of memory"] = ", ".join(map(str, left_out))
    machine = {**describe_machine(), "numpy": np.__version__, "torch": torch.__version__}
    return report("ranks", settings, figures, machine, options.json)


if __name__ == "__main__":
    sys.exit(main())
