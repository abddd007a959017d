"""What the benchmarks share: interleaved pairs, the table, the JSON, and a description of the machine."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from difftrace.core.atomic import write_atomically
from difftrace.core.schemas import violation

Scalar = str | int | float | bool | None
Action = Callable[[], object]


@dataclass(frozen=True)
class Figure:
    """One measured number; `at_most` is its target, None for one that is there for reference."""

    name: str
    value: float
    unit: str = ""
    at_most: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the target is met."""
        return self.at_most is None or self.value <= self.at_most


@dataclass(frozen=True)
class Pairs:
    """Seconds of two actions that ran in turn: entry i of both was measured in one go."""

    first: tuple[float, ...]
    second: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median over the pairs of second / first: drift of the machine hits both halves of a pair alike."""
        return statistics.median(self._ratios)

    @property
    def error(self) -> float | None:
        """Standard error of that median, from the spread between quartiles (normal approximation).

        None of a single pair, which has no spread.
        """
        if len(self._ratios) < 2:
            return None
        low, _, high = statistics.quantiles(self._ratios, n=4)
        return 1.2533 * (high - low) / 1.349 / math.sqrt(len(self._ratios))

    @property
    def added(self) -> float:
        """Median over the pairs of second - first, in seconds."""
        return statistics.median(second - first for first, second in zip(self.first, self.second, strict=True))

    @property
    def _ratios(self) -> list[float]:
        return [second / first for first, second in zip(self.first, self.second, strict=True)]


def count(text: str) -> int:
    """Return the value of an option such as --pairs, for argparse, which names the option where this raises."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return number


def counts(text: str) -> list[int]:
    """Return the values of an option such as --ranks 1,2,4, for argparse."""
    return [count(part) for part in text.split(",")]


def ratio_figures(name: str, pairs: Pairs, at_most: float | None = None) -> list[Figure]:
    """Return the ratio of `pairs` and, of more than one pair, its standard error."""
    ratio = Figure(name, pairs.ratio, at_most=at_most)
    return [ratio] if pairs.error is None else [ratio, Figure("  standard error", pairs.error)]


def measure_pairs(base: Action, changed: Action, pairs: int) -> tuple[Pairs, Pairs]:
    """Time (base, changed) and (base, base) in turn, `pairs` times each, after one warm-up of both.

    Returns the pairs of interest and the pairs of two identical runs, which show the noise. Within a pair the order
    alternates, so that coming second is no advantage.
    """
    base(), changed()
    interest: list[tuple[float, float]] = []
    noise: list[tuple[float, float]] = []
    for turn in range(pairs):
        for other, results in ((changed, interest), (base, noise)):
            if turn % 2:
                second = _seconds(other)
                results.append((_seconds(base), second))
            else:
                results.append((_seconds(base), _seconds(other)))
    return _transposed(interest), _transposed(noise)


def report(
    benchmark: str,
    settings: Mapping[str, Scalar],
    figures: Sequence[Figure],
    machine: Mapping[str, Scalar],
    json_file: Path | None,
) -> int:
    """Print machine, settings and figures, write them to `json_file`, and return the exit status: 1 for a miss."""
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    print(", ".join(f"{key} {value}" for key, value in settings.items()))
    width = max(len(figure.name) for figure in figures)
    print(f"\n{'':<{width}}{'measured':>12}{'at most':>10}")
    for figure in figures:
        target = "" if figure.at_most is None else f"{figure.at_most:>10.5g}  {'ok' if figure.ok else 'MISSED'}"
        print(f"{figure.name:<{width}}{figure.value:>12.5g}{target} {figure.unit}".rstrip())
    ok = all(figure.ok for figure in figures)
    if json_file is not None:
        document = {
            "format": "difftrace-benchmark",
            "version": "0.1",
            "benchmark": benchmark,
            "machine": dict(machine),
            "settings": dict(settings),
            "figures": [{**asdict(figure), "ok": figure.ok} for figure in figures],
            "ok": ok,
        }
        problem = violation("benchmark", document)
        if problem is not None:
            raise SystemExit(f"the result breaks schemas/benchmark.schema.json: {problem}")
        write_atomically(json_file, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())
    return 0 if ok else 1


def describe_machine() -> dict[str, Scalar]:
    """Return what figures depend on, with neither host name nor path."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _cpu() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _seconds(action: Action) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _transposed(pairs: Sequence[tuple[float, float]]) -> Pairs:
    first, second = zip(*pairs, strict=True)
    return Pairs(first, second)
