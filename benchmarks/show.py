"""How long a person waits for `difftrace show`.

    python benchmarks/show.py [--pairs N] [--json FILE]

Times the command on a small baseline and on one of 512 positions and 512 steps, in interleaved pairs with the least
that a command here needs: an interpreter that imports click, numpy and zstandard. Exit status 1 if the target is
missed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from _harness import Figure, count, describe_machine, measure_pairs, report

from difftrace.core.baseline import save
from difftrace.core.recording import ModelIdentity
from difftrace.core.run import Run
from difftrace.core.trajectory import Trajectory

TARGET_MS = 350.0
MASK = 999
SIZES = (16, 512)
PROGRAM = "from difftrace.cli import main; main()"
LEAST = "import click, numpy, zstandard"


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description="How long `difftrace show` takes.")
    parser.add_argument("--pairs", type=count, default=15, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    options = parser.parse_args()

    figures = []
    with tempfile.TemporaryDirectory() as name:
        for size in SIZES:
            path = write(Path(name) / f"{size}.json", size)
            shown, _ = measure_pairs(partial(run, LEAST), partial(run, PROGRAM, "show", str(path)), options.pairs)
            median = statistics.median(shown.second) * 1e3
            figures += [
                Figure(f"difftrace show, {size} positions x {size} steps", median, "ms", TARGET_MS),
                Figure("  more than click, numpy and zstandard alone", shown.added * 1e3, "ms"),
            ]
    figures.append(Figure("click, numpy and zstandard alone", statistics.median(shown.first) * 1e3, "ms"))
    return report("show", {"pairs": options.pairs}, figures, describe_machine(), options.json)


def write(path: Path, size: int) -> Path:
    """Write a baseline of `size` positions, each committed once, in as many steps."""
    rng = np.random.default_rng(size)
    trajectory = Trajectory(
        prompt=[],
        initial=[MASK] * size,
        steps=rng.permutation(size),
        positions=np.arange(size),
        tokens=rng.integers(0, MASK, size),
        num_steps=size,
    )
    model = ModelIdentity("random", None, None, None, None, MASK + 1, MASK)
    pieces = {token: f"word{token}" for token in range(MASK)}
    save(path, Run((trajectory,), model=model, pieces=pieces).to_baseline(None))
    return path


def run(program: str, *arguments: str) -> None:
    """Run a Python program to its end."""
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr.decode()}")


if __name__ == "__main__":
    sys.exit(main())
