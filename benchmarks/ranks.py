"""How long ranks take to agree on a run, and to find where they do not.

    python benchmarks/ranks.py [--ranks 1,2,4,8] [--runs N] [--json FILE] [--svg FILE]

Every rank is a process of this machine, all in one gloo group, and hands over new random trajectories of LLaDA's
vocabulary, 128 positions in 64 steps, whose digests nobody has computed yet. Figures are medians over the runs as rank
0 sees them, from the end of its run until it knows what all decided. In a disagreement the last rank has another token.
What is measured is processes that share the cores: where there are more ranks than cores, most of the time one waits
for its turn. Sizes that would take more memory than there is are left out, and said so.

The paper reports that coordinating up to 72 GPUs, of several machines, adds less than 18 % to the time that provenance
takes on one. Beside it stands what agreeing adds to capturing such a run step by step and storing it in the background,
as one process does it alone.
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

import _paper
import numpy as np
import torch
import torch.distributed as dist
from _harness import Figure, Scalar, count, counts, describe_machine, report
from _runs import MASK, VOCABULARY, random_runs
from _svg import Bar, add_svg_option, draw

from difftrace.core.errors import RankError
from difftrace.core.run import Run
from difftrace.core.trajectory import Trajectory, TrajectoryCapture
from difftrace.engine import DiffTraceEngine
from difftrace.ranks import agreed, current
from difftrace.utils.config import DiffTraceConfig

PROMPT, LENGTH, STEPS = 100, 128, 64
WARM_UP = 5
DISAGREEMENTS = 20

DEFAULT_RANKS = "1,2,4,8,16,32,64"

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


def provenance(folder: Path, number: int) -> float:
    """Return the seconds that capturing a run and storing it in the background take, the mean of `number` runs."""
    runs = random_runs(number, prompt=PROMPT, generated=LENGTH, steps=STEPS)
    config = DiffTraceConfig()
    config.store.base_path = folder
    masks = [list(runs.masks(run)) for run in range(number)]
    with DiffTraceEngine(config) as engine:

        def capture_and_store() -> None:
            for run in range(number):
                capture = TrajectoryCapture(config.capture)
                capture.begin_trajectory(
                    str(run),
                    runs.prompts[run],
                    num_diffusion_steps=STEPS,
                    sequence_length=runs.length,
                    mask_token_id=MASK,
                )
                for step, mask in enumerate(masks[run]):
                    capture.capture_step(step, runs.positions[run, step], runs.tokens[run, step], mask)
                engine.store_trajectory(capture.end_trajectory(runs.outputs[run]))
            engine.flush()

        return seconds(capture_and_store) / number


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
    if size == 1:
        found["provenance"] = provenance(result.parent / "store", runs)
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


def figures_of(size: int, found: dict[str, float], alone: float) -> list[Figure]:
    """Return the lines of one number of ranks; `alone` are the seconds of one rank's provenance."""
    name = f"{size} rank{'' if size == 1 else 's'}"
    if size == 1:
        return [
            Figure(f"{name}: nothing to agree on", found["agreement"] * 1e6, "µs"),
            Figure("  capturing and storing a run", alone * 1e6, "µs"),
        ]
    return [
        Figure(f"{name}: agreement on a run", found["agreement"] * 1e6, "µs"),
        Figure("  with it, capturing and storing / alone", 1 + found["agreement"] / alone),
        Figure("  a disagreement, told where", found["disagreement"] * 1e6, "µs"),
        Figure("  the first run, which connects them", found["first"] * 1e6, "µs"),
    ]


def sizes_that_fit(sizes: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the numbers of ranks that the memory has room for, and the others."""
    free = free_bytes()
    return [size for size in sizes if size * RANK_BYTES <= free], [size for size in sizes if size * RANK_BYTES > free]


def measure_sizes(sizes: Sequence[int], runs: int) -> tuple[list[Figure], list[Bar], dict[str, Scalar]]:
    """Return the figures of those numbers of ranks that the memory has room for, their bars, and what was left out."""
    fitting, left_out = sizes_that_fit(sizes)
    one = run_ranks(1, runs)
    alone = one["provenance"]
    figures, bars = [], []
    for size in fitting:
        found = one if size == 1 else run_ranks(size, runs)
        figures += figures_of(size, found, alone)
        if size > 1:
            bars.append(Bar(f"{size} ranks, {os.cpu_count()} cores", 100 * found["agreement"] / alone))
    figures.append(Figure("the paper, coordinated / one GPU, 72 GPUs", _paper.COORDINATION))
    bars.append(Bar("paper, 72 GPUs, at most, published", 100 * (_paper.COORDINATION - 1), ours=False))
    told: dict[str, Scalar] = {"ranks": ", ".join(map(str, fitting))}
    if left_out:
        told["left out for want of memory"] = ", ".join(map(str, left_out))
    return figures, bars, told


def draw_ranks(file: Path | None, bars: Sequence[Bar], machine: dict[str, Scalar]) -> None:
    """Write the chart of `measure_sizes`."""
    draw(file, "What agreeing adds to capturing and storing a run", "per cent of its time", bars, machine)


def main() -> int:
    """Print the figures; return the exit status."""
    parser = argparse.ArgumentParser(description="What it takes ranks to agree on a run.")
    parser.add_argument(
        "--ranks", type=counts, default=DEFAULT_RANKS, metavar="N,N", help=f"how many (default: {DEFAULT_RANKS})"
    )
    parser.add_argument("--runs", type=count, default=200, metavar="N", help="compared by each number of ranks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    add_svg_option(parser)
    options = parser.parse_args()
    if not hasattr(os, "fork"):
        parser.error("ranks are forked, which this system cannot")
    digests = [seconds(lambda run=run: run.trajectories[0].digest) for run in map(random_run, range(options.runs))]
    figures, bars, told = measure_sizes(options.ranks, options.runs)
    figures.insert(0, Figure("a digest alone", statistics.median(digests) * 1e6, "µs"))
    settings: dict[str, Scalar] = {"runs": options.runs, "positions": LENGTH, "steps": STEPS, **told}
    machine = {**describe_machine(), "numpy": np.__version__, "torch": torch.__version__}
    draw_ranks(options.svg, bars, machine)
    return report("ranks", settings, figures, machine, options.json)


if __name__ == "__main__":
    sys.exit(main())
