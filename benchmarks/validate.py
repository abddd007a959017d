"""How long `difftrace validate` takes for a project's baselines.

    python benchmarks/validate.py [--baselines N] [--json FILE]

Records one run of the reference model, writes it N times as the baselines of N tests, and times the command on their
folder, the start of its interpreter included. The command is one process, so that a second core does not count. Exit
status 1 if the target is missed; it is for 2,000 baselines and scales with their number.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from _harness import Figure, count, describe_machine, report

from difftrace.core.baseline import dump, save
from difftrace.core.recording import Baseline, TestId

TARGET_SECONDS = 10.0
TARGET_BASELINES = 2000
PROGRAM = "from difftrace.cli import main; main()"


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description="How long `difftrace validate` takes.")
    parser.add_argument("--baselines", type=int, default=TARGET_BASELINES, metavar="N")
    parser.add_argument("--rounds", type=count, default=3, metavar="N")
    parser.add_argument("--gen-length", type=int, default=64, metavar="L")
    parser.add_argument("--steps", type=int, default=64, metavar="T")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    options = parser.parse_args()

    golden = record(options.gen_length, options.steps)
    with tempfile.TemporaryDirectory() as name:
        for index in range(options.baselines):
            test = TestId(f"test_{index // 20}.py", f"test_case[{index}]", None)
            path = Path(name) / "__difftrace__" / f"test_{index // 20}" / f"test_case[{index}].json"
            save(path, replace(golden, test=test))
        seconds = [validate(Path(name), options.baselines) for _ in range(options.rounds)]
        nothing = [validate_one(next(Path(name).rglob("*.json"))) for _ in range(options.rounds)]

    scale = options.baselines / TARGET_BASELINES
    figures = [
        Figure(f"difftrace validate, {options.baselines} baselines", min(seconds), "s", TARGET_SECONDS * scale),
        Figure("  slowest", max(seconds), "s"),
        Figure("  a baseline", (min(seconds) - min(nothing)) / options.baselines * 1e3, "ms"),
        Figure("difftrace validate, one baseline", min(nothing), "s"),
        Figure("size of a baseline", len(dump(golden)) / 1024, "KiB"),
    ]
    settings = {"baselines": options.baselines, "gen_length": options.gen_length, "steps": options.steps}
    machine = {**describe_machine(), "jsonschema": importlib.metadata.version("jsonschema")}
    return report("validate", settings, figures, machine, options.json)


def record(gen_length: int, steps: int) -> Baseline:
    """Return one run of the reference model with its evidence."""
    from difftrace.models import load_model
    from difftrace.models.reference import reference_model_path
    from difftrace.verification.runner import ModelRunner

    runner = ModelRunner(load_model(reference_model_path(), device="cpu"))
    return runner.generate("12 + 30 = ", gen_length=gen_length, steps=steps, block_length=gen_length).to_baseline(None)


def validate(folder: Path, expected: int) -> float:
    """Return the seconds that validating `folder` takes."""
    start = time.perf_counter()
    command = [sys.executable, "-c", PROGRAM, "validate", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode != 0 or done.stdout != f"{expected} checked, 0 invalid\n":
        raise SystemExit(f"difftrace validate ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return seconds


def validate_one(path: Path) -> float:
    """Return the seconds that validating one file takes: nearly all of it starting."""
    return validate(path, 1)


if __name__ == "__main__":
    sys.exit(main())
