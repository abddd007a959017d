"""What `pytest --difftrace-verify` takes for a check, outside the model.

    python benchmarks/verify_overhead.py [--checks N] [--pairs N] [--json FILE]

Runs a suite of N tests that hold a ready-made run of 64 positions in 64 steps, with evidence, against its baseline, and
the same suite without the call, in interleaved pairs. The difference, less that of suites of one test, is everything
that a check costs: reading and validating the baseline, comparing, classifying, and writing the report.
Exit status 1 if the target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from _harness import Figure, Pairs, count, describe_machine, measure_pairs, report

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
def test_run(index, difftrace):
    made = run(index)
    CHECK
"""


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description="What a check costs outside the model.")
    parser.add_argument("--checks", type=count, default=200, metavar="N")
    parser.add_argument("--pairs", type=count, default=7, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        many = _measured(Path(name, "many"), options.checks, options.pairs)
        one = _measured(Path(name, "one"), 1, options.pairs)
        document = json.loads((Path(name, "many", "with", ".difftrace", "report.json")).read_text(encoding="utf-8"))

    seconds = sorted(check["seconds"] for check in document["checks"])
    assert document["counts"]["status"] == {"verified": options.checks}, document["counts"]
    each = 1e3 / (options.checks - 1)
    figures = [
        Figure("a check, reports and all", (many.added - one.added) * each, "ms", at_most=TARGET_MS),
        Figure("  of that by the report, median", statistics.median(seconds) * 1e3, "ms"),
        Figure("once: imports, the first check, the last report", one.added * 1e3, "ms"),
        Figure("the suite without checks", statistics.median(many.first) * 1e3, "ms"),
    ]
    machine = {**describe_machine(), "pytest": version("pytest")}
    settings = {"checks": options.checks, "pairs": options.pairs, "positions": 64, "steps": 64}
    return report("verify_overhead", settings, figures, machine, options.json)


def _measured(folder: Path, checks: int, pairs: int) -> Pairs:
    """Return how long suites of so many tests take, without the call and with it."""
    kinds = {"without": "pass", "with": "difftrace.check(made)"}
    for kind, check in kinds.items():
        (folder / kind).mkdir(parents=True)
        (folder / kind / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        text = SUITE.replace("NUMBER", str(checks)).replace("CHECK", check)
        (folder / kind / "test_overhead.py").write_text(text, encoding="utf-8")
    _pytest(folder / "with", "--difftrace-record")
    without, checked = (lambda kind=kind: _pytest(folder / kind, "--difftrace-verify") for kind in kinds)
    measured, _ = measure_pairs(without, checked, pairs)
    return measured


def _pytest(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "GITHUB_"))}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"pytest ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
