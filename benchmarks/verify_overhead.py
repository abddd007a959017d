"""What `pytest --difftrace-verify` takes for a check, outside the model.

    python benchmarks/verify_overhead.py [--checks N] [--block N] [--rounds N] [--json FILE]

Runs a suite of tests that hold a ready-made run of 64 positions in 64 steps, with evidence, against its baseline.
Blocks of such tests take turns, in one process, with blocks of tests that make the same runs, ask for the same fixture
and check nothing. A test counts from the first of its hooks to the last, so that the difference of two blocks is
everything that checking adds: reading and validating the baseline, comparing, classifying, the entry in the report, and
writing the report as it grows. A check is the median of that over the blocks of all rounds, by the wall clock, and its
share of the processor time that the last report takes. What happens once is told apart: the first blocks of a round,
which import and cache, and ending the session, which waits until the last report is on the disk. Processor time is
there to tell how busy the machine was meanwhile. Exit status 1 if the target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from _harness import Figure, count, describe_machine, report

TARGET_MS = 3.0
SUITE = """
import numpy as np
import pytest
from difftrace import Trajectory
from difftrace.core.evidence import DIGEST_LANES, PROJECTIONS, REJECTED, Evidence
from difftrace.core.recording import ModelIdentity, SamplerIdentity
from difftrace.core.run import Run

COUNT = 64

def run(index):
    random = np.random.default_rng(index)
    tokens = random.integers(0, 100_000, COUNT)
    steps = np.arange(COUNT)
    positions = random.permutation(COUNT) + 2
    rejected = np.full((COUNT, REJECTED), -1)
    for step in steps:
        later = positions[step + 1 : step + 1 + REJECTED]
        rejected[step, : later.size] = later
    trajectory = Trajectory(prompt=[1, 2], initial=[1, 2] + [126336] * COUNT, steps=steps,
                            positions=positions, tokens=tokens, num_steps=COUNT)
    evidence = Evidence(
        top_tokens=tokens, top_scores=random.normal(20, 1, COUNT), runner_up_tokens=(tokens + 1) % 100_000,
        runner_up_scores=random.normal(10, 1, COUNT), confidences=[-0.1] * COUNT, candidates=COUNT - steps,
        rejected_positions=rejected, rejected_tokens=np.where(rejected < 0, -1, 7),
        rejected_confidences=np.where(rejected < 0, np.nan, -0.5 - np.arange(REJECTED)), ties=[0] * COUNT,
        non_finite=[0] * COUNT, logits_digests=random.integers(0, 2**31, (COUNT, DIGEST_LANES)),
        sketches=random.normal(0, 1, (COUNT, PROJECTIONS)), sketched=[10_000] * COUNT, noise_digests=[0] * COUNT)
    model = ModelIdentity("model", None, *(f"sha256:{one * 64}" for one in "abc"), 126464, 126336)
    environment = {f"field{number}": "value" for number in range(40)}
    return Run((trajectory,), texts=("text",), prompt_texts=("prompt",), model=model,
               sampler=SamplerIdentity("llada", 1, {"seed": 0}), environment={**environment, "dtype": "bfloat16"},
               pieces={int(token): f"piece{token}" for token in tokens}, evidences=(evidence,))

@pytest.mark.parametrize("index", range(NUMBER))
def test_plain(index, difftrace):
    run(index)

@pytest.mark.parametrize("index", range(NUMBER))
def test_checked(index, difftrace):
    difftrace.check(run(index))
"""
TIMING = """
import json
import time
from pathlib import Path
import pytest

tests, last = [], []

def clocks():
    return time.perf_counter(), time.process_time()

def spent(start):
    return [now - then for now, then in zip(clocks(), start)]

def pytest_collection_modifyitems(items):
    # Every other time the checked block comes first, so that coming second is no advantage.
    def order(item):
        index = item.callspec.params["index"]
        block = index // BLOCK
        return block, (item.originalname == "test_checked") != block % 2, index
    items.sort(key=order)

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    start = clocks()
    result = yield
    tests.append([item.originalname == "test_checked", item.callspec.params["index"] // BLOCK, *spent(start)])
    return result

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session):
    start = clocks()
    yield
    Path("times.json").write_text(json.dumps({"tests": tests, "last": spent(start)}), encoding="utf-8")
"""


@dataclass(frozen=True)
class Round:
    """What one run of the suite took, in seconds by one clock.

    Attributes:
        blocks: of each pair of blocks after the first what the checked block took more than the other, for a check.
        once: what the first pair of blocks took more than the median of the later ones, at least 0.
        last: ending the session, with the last report.
    """

    blocks: tuple[float, ...]
    once: float
    last: float


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description="What a check costs outside the model.")
    parser.add_argument("--checks", type=count, default=400, metavar="N", help="in a round; at least two blocks")
    parser.add_argument("--block", type=count, default=20, metavar="N", help="tests that run in one go")
    parser.add_argument("--rounds", type=count, default=5, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    options = parser.parse_args()
    if options.checks % options.block or options.checks < 2 * options.block:
        parser.error("the checks of a round must be two whole blocks or more")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        text = SUITE.replace("NUMBER", str(options.checks))
        (folder / "test_overhead.py").write_text(text, encoding="utf-8")
        (folder / "conftest.py").write_text(TIMING.replace("BLOCK", str(options.block)), encoding="utf-8")
        _pytest(folder, "--difftrace-record")
        measured, own = [], []
        for _ in range(options.rounds):
            _pytest(folder, "--difftrace-verify")
            measured.append(json.loads((folder / "times.json").read_text(encoding="utf-8")))
            document = json.loads((folder / ".difftrace" / "report.json").read_text(encoding="utf-8"))
            assert document["counts"]["status"] == {"verified": options.checks}, document["counts"]
            own += [check["seconds"] for check in document["checks"]]

    wall = [round_of(times, "wall", options.block) for times in measured]
    processor = [round_of(times, "processor", options.block) for times in measured]
    share = statistics.median(one.last for one in processor) / options.checks
    figures = [
        Figure("a check, reports and all", 1e3 * (per_check(wall) + share), "ms", at_most=TARGET_MS),
        Figure("  of that by its own clock", 1e3 * statistics.median(own), "ms"),
        Figure("  of that its share of the last report", 1e3 * share, "ms"),
        Figure("a check, processor time", 1e3 * (per_check(processor) + share), "ms"),
        Figure("once: imports, schemas", 1e3 * statistics.median(one.once for one in wall), "ms"),
        Figure("once: ending the session", 1e3 * statistics.median(one.last for one in wall), "ms"),
    ]
    machine = {**describe_machine(), "pytest": version("pytest")}
    settings = {
        "checks": options.checks,
        "block": options.block,
        "rounds": options.rounds,
        "positions": 64,
        "steps": 64,
    }
    return report("verify_overhead", settings, figures, machine, options.json)


def round_of(times: dict[str, Any], clock: Literal["wall", "processor"], block: int) -> Round:
    """Return what a round took by one of the clocks; `times` is what the suite's conftest wrote."""
    at = ("wall", "processor").index(clock)
    took: dict[tuple[int, bool], float] = {}
    for checked, number, *seconds in times["tests"]:
        took[number, checked] = took.get((number, checked), 0.0) + seconds[at]
    numbers = sorted({number for number, _ in took})
    more = [took[number, True] - took[number, False] for number in numbers]
    # The fixture imports, whichever block of a pair asks for it first.
    pairs = [took[number, True] + took[number, False] for number in numbers]
    # What the machine did meanwhile may make the later blocks the slower ones; starting never gives time back.
    once = max(0.0, pairs[0] - statistics.median(pairs[1:]))
    return Round(tuple(seconds / block for seconds in more[1:]), once, times["last"][at])


def per_check(rounds: Sequence[Round]) -> float:
    """Return the seconds that a check takes while the suite runs."""
    return statistics.median(seconds for one in rounds for seconds in one.blocks)


def _pytest(folder: Path, *arguments: str) -> None:
    # Other plugins at hand would count as well: Hypothesis imports itself at the end of a session.
    without = [argument for name in ("cacheprovider", "hypothesispytest", "anyio") for argument in ("-p", f"no:{name}")]
    command = [sys.executable, "-m", "pytest", "-q", *without, *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "GITHUB_"))}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"pytest ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
