"""What trajectories cost as bytes, beside what they are worth, and how long reading them takes.

    python benchmarks/codec.py [--json FILE]

Random trajectories with LLaDA's vocabulary commit every generated position once, at a uniformly drawn step.
The bound is L log2 V + log2(L! / prod k_s!) bits, or the sum of log2 V over events and log2 C(L, k_s) over
steps where positions are rewritten. Prompts are counted apart. The paper reports 5,203 bytes for 128 positions
and 64 steps. Exit status 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _harness import Figure, describe_machine, report

from difftrace.core import codec
from difftrace.core.trajectory import Trajectory

VOCABULARY = 126464
MASK = 126336
END = 126081
REWRITING_VOCABULARY = 262144

# What the paper reports for a trajectory of 128 positions and 64 steps.
PAPER_BYTES = 5203

SIZES = [
    (128, 64),
    (512, 64),
    (512, 256),
    (512, 257),
    (512, 300),
    (512, 512),
    (1024, 512),
    (1024, 1024),
    (2048, 1024),
    (4096, 2048),
    (4096, 4096),
]


@dataclass(frozen=True)
class Size:
    """One row of the table; sizes in bytes. The target is a number of bytes, or else a multiple of the bound."""

    name: str
    prompt_bytes: int
    decision_bytes: int
    bound_bytes: float
    most_bytes: float | None = None
    most_ratio: float = 1.10

    @property
    def ratio(self) -> float:
        """Size over bound."""
        return self.decision_bytes / self.bound_bytes

    @property
    def figure(self) -> Figure:
        """What the target speaks of."""
        if self.most_bytes is not None:
            return Figure(self.name, self.decision_bytes, "bytes", at_most=self.most_bytes)
        return Figure(f"{self.name}: size / bound", self.ratio, at_most=self.most_ratio)


def random_trajectory(length: int, steps: int, *, prompt: int = 0, end_tokens: int = 0) -> Trajectory:
    """Return `length` masks after a prompt, each committed once; the last `end_tokens` take the end token."""
    rng = np.random.default_rng(length * 10_007 + steps)
    prompt_ids = rng.integers(0, VOCABULARY, prompt)
    tokens = rng.integers(0, VOCABULARY, length)
    tokens[length - end_tokens :] = END
    return Trajectory(
        prompt=prompt_ids,
        initial=np.concatenate((prompt_ids, np.full(length, MASK))),
        steps=rng.integers(0, steps, length),
        positions=np.arange(prompt, prompt + length),
        tokens=tokens,
        num_steps=steps,
    )


def rewriting_trajectory() -> Trajectory:
    """Return DiffusionGemma's way: 256 positions that start random, 230 of them rewritten at each of 48 steps."""
    rng = np.random.default_rng(48)
    return Trajectory(
        prompt=[],
        initial=rng.integers(0, REWRITING_VOCABULARY, 256),
        steps=np.repeat(np.arange(48), 230),
        positions=np.concatenate([rng.choice(256, 230, replace=False) for _ in range(48)]),
        tokens=rng.integers(0, REWRITING_VOCABULARY, 48 * 230),
        num_steps=48,
    )


def commit_bound(trajectory: Trajectory) -> float:
    """Return the bytes that committing every generated position once is worth."""
    events = trajectory.num_events
    orders = math.lgamma(events + 1) - sum(math.lgamma(k + 1) for k in np.bincount(trajectory.steps))
    return (events * math.log2(VOCABULARY) + orders / math.log(2)) / 8


def rewriting_bound(trajectory: Trajectory) -> float:
    """Return the bytes that any events over the whole canvas are worth."""
    places = sum(math.log2(math.comb(trajectory.length, int(k))) for k in np.bincount(trajectory.steps))
    return (trajectory.num_events * math.log2(REWRITING_VOCABULARY) + places) / 8


def encode(trajectory: Trajectory) -> bytes:
    """Return the encoding after checking that it reads back exactly."""
    data = trajectory.to_bytes()
    if Trajectory.from_bytes(data) != trajectory:
        raise SystemExit("an encoding does not read back exactly")
    return data


def measure_sizes() -> list[Size]:
    """Return the rows of the table."""
    rows = []
    for length, steps in SIZES:
        trajectory = random_trajectory(length, steps)
        most = 450 if length == 128 else None
        rows.append(Size(f"L={length}, T={steps}", 0, len(encode(trajectory)), commit_bound(trajectory), most))
    alone, with_prompt = random_trajectory(128, 64), random_trajectory(128, 64, prompt=100)
    # The prompt draws first, so that the generated parts differ; their bound and size hardly do.
    size, bound = len(encode(alone)), commit_bound(alone)
    rows.append(Size("L=128, T=64, prompt of 100", len(encode(with_prompt)) - size, size, bound, 450))
    tail = random_trajectory(128, 64, end_tokens=64)
    rows.append(Size("L=128, T=64, 64 end tokens", 0, len(encode(tail)), commit_bound(tail), size - 1))
    rewriting = rewriting_trajectory()
    bound = rewriting_bound(rewriting)
    rows.append(Size("256 rewritten in 48 steps", 0, len(encode(rewriting)), bound, most_ratio=1.15))
    return rows


def measure_time(name: str, action: Callable[[], object], most: float, repeats: int) -> list[Figure]:
    """Return median and fastest of `repeats` runs, in microseconds, after a tenth as many to warm up."""
    for _ in range(repeats // 10):
        action()
    nanoseconds = []
    for _ in range(repeats):
        start = time.perf_counter_ns()
        action()
        nanoseconds.append(time.perf_counter_ns() - start)
    return [
        Figure(name, statistics.median(nanoseconds) / 1e3, "µs", at_most=most),
        Figure("  fastest", min(nanoseconds) / 1e3, "µs"),
    ]


def measure_times(repeats: int) -> list[Figure]:
    """Return how long a run of 128 positions and 64 steps takes to read."""
    data = encode(random_trajectory(128, 64))
    return [
        *measure_time("reading the event columns", lambda: codec.decode(data), 25.0, repeats),
        *measure_time("Trajectory.from_bytes(b).final", lambda: Trajectory.from_bytes(data).final, 50.0, repeats),
    ]


def main() -> int:
    """Print the table and the figures; return the exit status."""
    parser = argparse.ArgumentParser(description="Size and decoding time of encoded trajectories.")
    parser.add_argument("--repeats", type=int, default=20_000, metavar="N", help="timed runs of each reading")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    options = parser.parse_args()

    sizes = measure_sizes()
    print(f"{'to_bytes()':<30}{'prompt':>8}{'decisions':>11}{'bound':>11}{'ratio':>8}")
    for row in sizes:
        print(f"{row.name:<30}{row.prompt_bytes:>8}{row.decision_bytes:>11}{row.bound_bytes:>11.1f}{row.ratio:>8.3f}")
    print()
    figures = [row.figure for row in sizes] + measure_times(options.repeats)
    figures.append(Figure("the paper, L=128, T=64", PAPER_BYTES, "bytes"))
    machine = {**describe_machine(), "numpy": np.__version__}
    return report("codec", {"vocabulary": VOCABULARY, "repeats": options.repeats}, figures, machine, options.json)


if __name__ == "__main__":
    sys.exit(main())
