"""What trajectories cost as bytes, beside what they are worth, and how long reading them takes.

    python benchmarks/codec.py [--json FILE]

Random trajectories with LLaDA's vocabulary commit every generated position once, at a uniformly drawn step.
The bound is L log2 V + log2(L! / prod k_s!) bits, or the sum of log2 V over events and log2 C(L, k_s) over
steps where positions are rewritten. Prompts are counted apart. Exit status 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from difftrace.core import codec
from difftrace.core.trajectory import Trajectory

VOCABULARY = 126464
MASK = 126336
END = 126081
REWRITING_VOCABULARY = 262144

PAPER_BYTES = 5203
"""What the paper reports for a trajectory of 128 positions and 64 steps."""

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
    """One row of the first table; sizes in bytes."""

    name: str
    prompt: int
    prompt_bytes: int
    decision_bytes: int
    bound_bytes: float
    most_bytes: float

    @property
    def ratio(self) -> float:
        """Size over bound."""
        return self.decision_bytes / self.bound_bytes

    @property
    def ok(self) -> bool:
        """Whether the target is met."""
        return self.decision_bytes <= self.most_bytes


@dataclass(frozen=True)
class Timing:
    """One row of the second table; microseconds."""

    name: str
    median: float
    fastest: float
    most: float

    @property
    def ok(self) -> bool:
        """Whether the target is met."""
        return self.median <= self.most


def random_trajectory(length: int, steps: int, *, prompt: int = 0, end_tokens: int = 0) -> Trajectory:
    """Return `length` masks after a prompt, each committed once; the last `end_tokens` positions take the end
    token."""
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
    """Return DiffusionGemma's way: 256 positions that start random, 230 of them rewritten at each of 48
    steps."""
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
    """Return the rows of the first table."""
    rows = []
    for length, steps in SIZES:
        trajectory = random_trajectory(length, steps)
        bound = commit_bound(trajectory)
        most = 450.0 if length == 128 else 1.10 * bound
        rows.append(Size(f"L={length}, T={steps}", 0, 0, len(encode(trajectory)), bound, most))
    alone = random_trajectory(128, 64)
    with_prompt = random_trajectory(128, 64, prompt=100)
    # The prompt draws first, so that the generated parts differ; their bound and size hardly do.
    prompt_bytes = len(encode(with_prompt)) - len(encode(alone))
    rows.append(
        Size("L=128, T=64, prompt of 100", 100, prompt_bytes, len(encode(alone)), commit_bound(alone), 450.0)
    )
    tail = random_trajectory(128, 64, end_tokens=64)
    rows.append(
        Size("L=128, T=64, 64 end tokens", 0, 0, len(encode(tail)), commit_bound(tail), len(encode(alone)) -
        1.0)
    )
    rewriting = rewriting_trajectory()
    bound = rewriting_bound(rewriting)
    rows.append(Size("256 rewritten in 48 steps", 0, 0, len(encode(rewriting)), bound, 1.15 * bound))
    return rows


def measure_time(name: str, action: Callable[[], object], most: float, repeats: int) -> Timing:
    """Return the median of `repeats` runs after a tenth as many to warm up."""
    for _ in range(repeats // 10):
        action()
    nanoseconds = []
    for _ in range(repeats):
        start = time.perf_counter_ns()
        action()
        nanoseconds.append(time.perf_counter_ns() - start)
    return Timing(name, statistics.median(nanoseconds) / 1e3, min(nanoseconds) / 1e3, most)


def measure_times(repeats: int) -> list[Timing]:
    """Return the rows of the second table, for a run of 128 positions and 64 steps."""
    data = encode(random_trajectory(128, 64))
    return [
        measure_time("event columns", lambda: codec.decode(data), 25.0, repeats),
        measure_time("Trajectory.from_bytes(b).final", lambda: Trajectory.from_bytes(data).final, 50.0,
        repeats),
    ]


def machine() -> dict[str, str]:
    """Return what the figures depend on."""
    model = platform.processor()
    information = Path("/proc/cpuinfo")
    if information.exists():
        names = [line.split(":", 1)[1].strip() for line in information.read_text().splitlines() if "model
        name" in line] model = names[0] if names else model
    return {
        "cpu": model,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def main() -> int:
    """Print both tables; return the exit status."""
    parser = argparse.ArgumentParser(description="Size and decoding time of encoded trajectories.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--repeats", type=int, default=20_000, metavar="N", help="timed runs of each row")
    options = parser.parse_args()

    sizes, times = measure_sizes(), measure_times(options.repeats)
    print(", ".join(machine().values()))
    print(f"\n{'to_bytes(), V =
    126464':<28}{'prompt':>8}{'decisions':>11}{'bound':>10}{'ratio':>8}{'target':>10}") for row in sizes:
        print(
            f"{row.name:<28}{row.prompt_bytes:>8}{row.decision_bytes:>11}{row.bound_bytes:>10.1f}{row.ratio:>8.3f}"
            f"{row.most_bytes:>10.1f}  {'ok' if row.ok else 'MISSED'}"
        )
    print(f"The paper reports {PAPER_BYTES} bytes for L=128, T=64: {PAPER_BYTES / sizes[0].decision_bytes:.1f}
    times ours.") print(f"\n{'decoding L=128, T=64, µs':<36}{'median':>10}{'fastest':>10}{'target':>10}")
    for timing in times:
        verdict = "ok" if timing.ok else "MISSED"
        print(f"{timing.name:<36}{timing.median:>10.1f}{timing.fastest:>10.1f}{timing.most:>10.0f} 
        {verdict}")

    ok = all(row.ok for row in sizes) and all(timing.ok for timing in times)
    if options.json is not None:
        figures = {
            "machine": machine(),
            "paper_bytes": PAPER_BYTES,
            "sizes": [{**asdict(row), "ratio": row.ratio, "ok": row.ok} for row in sizes],
            "times_us": [{**asdict(timing), "ok": timing.ok} for timing in times],
            "ok": ok,
        }
        options.json.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
