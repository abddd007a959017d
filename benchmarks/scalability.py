"""Runs captured, stored and replayed a second by 1, 2, 4, … threads and processes that share one store, and ranks.

    python benchmarks/scalability.py [--most N] [--trajectories N] [--json FILE] [--svg FILE]
    python benchmarks/scalability.py --ranks 1,2,4,8,16,32,64 --ranks-svg FILE
    python benchmarks/scalability.py --config reference --trajectories 200

Each worker captures its share of the runs, random ones or with `--config` a model's, step by step and stores it in the
background: threads through one engine, processes through one each, on the same file. The clock stops when everything is
acknowledged; then every run is read back and held against what was captured. With `--ranks` as many processes of one
gloo group agree on each run before one of them stores it, as ranks.py measures it, beside what the paper reports of its
coordination. Exit status 1 if a run is missing or does not replay.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from _harness import Figure, Scalar, count, counts, report
from _runs import Runs
from _sources import add_source_options, machine_of, runs_of, settings_of, title_of
from _svg import Bar, add_svg_option, draw

from difftrace.core.trajectory import TrajectoryCapture
from difftrace.engine import DiffTraceEngine
from difftrace.utils.config import DiffTraceConfig


def settings_in(folder: Path) -> DiffTraceConfig:
    """Return what every engine is made with."""
    config = DiffTraceConfig()
    config.store.base_path = folder
    return config


def store_share(engine: DiffTraceEngine, runs: Runs, worker: int, workers: int) -> None:
    """Capture and store every run that is this worker's."""
    for run in range(worker, len(runs), workers):
        capture = TrajectoryCapture(engine.config.capture)
        capture.begin_trajectory(
            f"{worker}/{run}",
            runs.prompts[run],
            num_diffusion_steps=runs.steps,
            sequence_length=runs.length,
            mask_token_id=runs.mask,
        )
        for step, mask in enumerate(runs.masks(run)):
            capture.capture_step(step, runs.positions[run, step], runs.tokens[run, step], mask)
        engine.store_trajectory(capture.end_trajectory(runs.outputs[run]))


def by_threads(folder: Path, runs: Runs, workers: int) -> float:
    """Return the seconds that so many threads take."""
    with DiffTraceEngine(settings_in(folder)) as engine, ThreadPoolExecutor(workers) as threads:
        start = time.perf_counter()
        shares = [threads.submit(store_share, engine, runs, worker, workers) for worker in range(workers)]
        for share in shares:
            share.result()
        engine.flush()
        return time.perf_counter() - start


def _process(folder: Path, runs: Runs, worker: int, workers: int, ready: object, go: object) -> None:
    with DiffTraceEngine(settings_in(folder)) as engine:
        ready.release()  # type: ignore[attr-defined]
        go.wait()  # type: ignore[attr-defined]
        store_share(engine, runs, worker, workers)
        engine.flush()


def by_processes(folder: Path, runs: Runs, workers: int) -> float:
    """Return the seconds that so many processes take, from when all have started."""
    context = multiprocessing.get_context("spawn")
    ready, go = context.Semaphore(0), context.Event()
    started = [
        context.Process(target=_process, args=(folder, runs, worker, workers, ready, go)) for worker in range(workers)
    ]
    for process in started:
        process.start()
    for _ in started:
        ready.acquire()
    start = time.perf_counter()
    go.set()
    for process in started:
        process.join()
    taken = time.perf_counter() - start
    if any(process.exitcode for process in started):
        raise SystemExit("a process failed")
    return taken


def wrong_runs(folder: Path, runs: Runs, workers: int) -> int:
    """Return how many runs are missing or do not replay to the outputs kept apart."""
    with DiffTraceEngine(settings_in(folder)) as engine:
        right = 0
        for run in range(len(runs)):
            result = engine.replay(f"{run % workers}/{run}")
            right += result.exact_match and np.array_equal(result.tokens, runs.outputs[run])
    return len(runs) - right


def ranks_of(options: argparse.Namespace) -> tuple[list[Figure], dict[str, Scalar]]:
    """Return the figures of ranks, if any were asked for, and their settings; draws their chart."""
    if not options.ranks:
        return [], {}
    # Here alone, for it imports torch, which the processes above do without.
    import ranks

    figures, bars, told = ranks.measure_sizes(options.ranks, options.runs)
    ranks.draw_ranks(options.ranks_svg, bars, machine_of(options))
    return figures, {"runs compared": options.runs, "torch": ranks.torch.__version__, **told}


def main() -> int:
    """Print the figures; return the exit status."""
    parser = argparse.ArgumentParser(description="Threads and processes that share one store.")
    parser.add_argument("--most", type=count, default=2 * (os.cpu_count() or 1), metavar="N", help="workers at most")
    parser.add_argument(
        "--trajectories", type=count, default=2000, metavar="N", help="stored by each number of workers"
    )
    parser.add_argument("--ranks", type=counts, default=[], metavar="N,N", help="also numbers of gloo ranks")
    parser.add_argument("--runs", type=count, default=200, metavar="N", help="compared by each number of ranks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    add_source_options(parser)
    add_svg_option(parser)
    parser.add_argument("--ranks-svg", type=Path, metavar="FILE", help="also draw what agreeing adds into FILE")
    options = parser.parse_args()
    if options.ranks and not hasattr(os, "fork"):
        parser.error("ranks are forked, which this system cannot")
    agreement, told = ranks_of(options)
    runs = runs_of(options, options.trajectories)
    figures, bars = [], []
    kinds: dict[str, Callable[[Path, Runs, int], float]] = {"threads": by_threads, "processes": by_processes}
    for kind, action in kinds.items():
        workers, alone = 1, 0.0
        while workers <= options.most:
            with tempfile.TemporaryDirectory() as scratch:
                rate = len(runs) / action(Path(scratch), runs, workers)
                wrong = wrong_runs(Path(scratch), runs, workers)
            alone = alone or rate
            name = f"{workers} {kind}"
            figures += [
                Figure(f"{name}: runs a second", rate),
                Figure("  of one worker's", rate / alone),
                Figure("  missing or not exact", wrong, at_most=0),
            ]
            bars.append(Bar(name, rate))
            workers *= 2
    figures += agreement
    machine = machine_of(options)
    draw(options.svg, title_of(options, "Runs captured and stored a second, one store"), "runs a second", bars, machine)
    settings = {"most": options.most, "trajectories": len(runs), **settings_of(options), **told}
    return report("scalability", settings, figures, machine, options.json)


if __name__ == "__main__":
    sys.exit(main())
