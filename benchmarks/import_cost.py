"""What having the plugin installed costs a test suite that does not use it.

    python benchmarks/import_cost.py [--pairs N] [--json FILE]

Runs `pytest --collect-only` on an empty suite with and without the plugin, in interleaved pairs, and reads from
`python -X importtime` how long the modules take that are imported only because of it. For comparison, measured the
same way elsewhere: syrupy 81 ms, inline-snapshot 228 ms. Exit status 1 if the target is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from _harness import Figure, count, describe_machine, measure_pairs, report

TARGET_MS = 15.0
HEAVY = ("torch", "transformers", "numpy", "jsonschema", "click", "zstandard")
OURS = ("difftrace", "pytest_difftrace")
WITHOUT = ("-p", "no:difftrace")
# pytest's "no tests were collected".
NOTHING_COLLECTED = 5


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description="What having the plugin installed costs.")
    parser.add_argument("--pairs", type=count, default=20, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        suite = Path(name)
        (suite / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        wall, noise = measure_pairs(lambda: _pytest(suite, *WITHOUT), lambda: _pytest(suite), options.pairs)
        plain = set(_imports(suite, *WITHOUT))
        profiles = [{**_plugin_alone(suite), **_imports(suite)} for _ in range(options.pairs)]

    if not any(_package(module) in OURS for module in profiles[0]):
        raise SystemExit("the plugin was not loaded: install the project first (pip install -e .)")
    ours = [_milliseconds(profile, lambda module: _package(module) in OURS) for profile in profiles]
    caused = [_milliseconds(profile, lambda module: module not in plain) for profile in profiles]
    loaded = [name for name in HEAVY if name in profiles[0]]
    figures = [
        Figure("imports of ours", statistics.median(ours), "ms", at_most=TARGET_MS),
        Figure("  fastest", min(ours), "ms"),
        Figure("imports of ours and of what only we import", statistics.median(caused), "ms", at_most=TARGET_MS),
        Figure("of " + ", ".join(HEAVY) + " imported", len(loaded), at_most=0),
        Figure("pytest --collect-only without the plugin", statistics.median(wall.first) * 1e3, "ms"),
        Figure("added by the plugin", wall.added * 1e3, "ms"),
        Figure("added between two identical runs", noise.added * 1e3, "ms"),
    ]
    print("imported only because of the plugin:", ", ".join(sorted(set(profiles[0]) - plain)))
    print("heavy modules imported:", ", ".join(loaded) or "none of " + ", ".join(HEAVY))
    machine = {**describe_machine(), "pytest": version("pytest")}
    return report("import_cost", {"pairs": options.pairs}, figures, machine, options.json)


def _pytest(suite: Path, *arguments: str, python: tuple[str, ...] = ()) -> str:
    """Run pytest on the empty suite; return what it wrote to stderr."""
    command = [sys.executable, *python, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=suite, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != NOTHING_COLLECTED:
        raise SystemExit(f"pytest ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stderr


def _imports(suite: Path, *arguments: str) -> dict[str, float]:
    """Return the seconds that every module imported by a run took itself, without what it imported in turn."""
    return _import_times(_pytest(suite, *arguments, python=("-X", "importtime")))


def _plugin_alone(suite: Path) -> dict[str, float]:
    """Return the same for the plugin's entry point, which pytest imports in a way that -X importtime does not see."""
    command = [sys.executable, "-X", "importtime", "-c", "import pytest; import pytest_difftrace.plugin"]
    done = subprocess.run(command, cwd=suite, capture_output=True, text=True, check=False)
    times = _import_times(done.stderr)
    return {module: times[module] for module in ("pytest_difftrace", "pytest_difftrace.plugin") if module in times}


def _import_times(stderr: str) -> dict[str, float]:
    found = {}
    for line in stderr.splitlines():
        own, _, rest = line.removeprefix("import time:").partition("|")
        if line.startswith("import time:") and own.strip().isdigit():
            found[rest.partition("|")[2].strip()] = int(own) / 1e6
    return found


def _package(module: str) -> str:
    return module.partition(".")[0]


def _milliseconds(profile: dict[str, float], counts: Callable[[str], bool]) -> float:
    return sum(seconds for module, seconds in profile.items() if counts(module)) * 1e3


if __name__ == "__main__":
    sys.exit(main())
