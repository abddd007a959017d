"""What capturing all logits of a run takes: memory beyond that of the run, time, and bytes on the disk.

    python benchmarks/logits_memory.py [--length N] [--steps N] [--vocabulary N] [--methods M …] [--folder FOLDER]
                                       [--json FILE]

A model that computes nothing returns bfloat16 logits of LLaDA-8B's size: 128 positions, 64 steps, a vocabulary of
126,464, which are 2 GB. They are normal with a standard deviation of 2.5, so their ratios are those of numbers without
pattern; a real model's differ. Every method runs in a process of its own, whose peak of resident memory (VmHWM: Linux
alone) is compared with that of a process that records nothing. What was written is read back and compared with what
the model returned, element by element. Exit status 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from _harness import Figure, describe_machine, report

METHODS = ("lossless", "lossy:0.1", "lossy:0.01", "lossy:0.001", "top:32")
MOST_EXTRA_MIB = 512.0
MIB = 1 << 20

# Numbers that rows are cut from, so many after each other that no chunk holds any twice.
_NUMBERS = 8_000_009


class Synthetic:
    """Returns new logits [1, L, V] at every call: a fixed row of normal numbers, shifted by position and step."""

    def __init__(self, vocabulary: int) -> None:
        import torch

        generator = torch.Generator().manual_seed(0)
        row = torch.randn(_NUMBERS, generator=generator).mul_(2.5).sub_(2.0).to(torch.bfloat16)
        self._row = torch.cat((row, row[:vocabulary]))
        self._vocabulary = vocabulary
        self.config = SimpleNamespace(
            mask_token_id=vocabulary - 1, eos_token_id=None, eot_token_id=None, embedding_size=vocabulary
        )
        self.forwards = 0

    def logits(self, step: int, length: int) -> Any:
        """Return what was or will be returned at `step`."""
        import torch

        starts = [(step * length + position) * self._vocabulary % _NUMBERS for position in range(length)]
        return torch.stack([self._row[start : start + self._vocabulary] for start in starts]).unsqueeze(0)

    def __call__(self, input_ids: Any, attention_mask: Any = None) -> Any:
        """Score every position."""
        self.forwards += 1
        return SimpleNamespace(logits=self.logits(self.forwards - 1, input_ids.shape[1]))


def peak_mib() -> float:
    """Return this process's peak of resident memory; getrusage's would include that of its parent."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not say how much memory a process took")


def capture(method: str, length: int, steps: int, vocabulary: int, folder: Path) -> dict[str, float]:
    """Run once in this process; return its peak, its seconds and what came of the file."""
    import torch

    from difftrace.core.logits_file import open_logits
    from difftrace.core.logits_reference import method_named
    from difftrace.sampling import LogitsTarget, generate

    torch.set_num_threads(1)
    model = Synthetic(vocabulary)
    shape: dict[str, Any] = {"steps": steps, "gen_length": length // 2, "block_length": length // 2}
    prompt = torch.zeros(1, length - length // 2, dtype=torch.long)
    path = folder / "run.logits"
    recorded: dict[str, Any] = {"record": method}
    if method not in ("none", "evidence"):
        recorded = {"record": "logits", "logits_to": LogitsTarget(path, method_named(method))}
    start = time.perf_counter()
    generate(model, prompt, **shape, **recorded)
    found = {"seconds": time.perf_counter() - start, "peak": peak_mib()}
    if path.exists():
        found["bytes"] = path.stat().st_size
        start = time.perf_counter()
        file = open_logits(path)
        file.check()
        found["read"] = time.perf_counter() - start
        if not method.startswith("top"):
            found["error"] = largest_error(file.rows[0], model)
    return found


def largest_error(row: Any, model: Synthetic) -> float:
    """Return the largest difference of what was read and what the model returned."""
    largest = 0.0
    for step in range(len(row)):
        returned = model.logits(step, row.file.layout.lengths[0])[0].float().numpy()
        for block in row.blocks(step):
            values = row.file.layout.words.values(block.bits)
            expected = returned[block.start : block.start + len(values)]
            largest = max(largest, float(np.abs(values.astype(np.float64) - expected).max()))
    return largest


def apart(method: str, options: argparse.Namespace) -> dict[str, float]:
    """Return what `capture` finds in a new process."""
    sizes = [f"--{name}={getattr(options, name)}" for name in ("length", "steps", "vocabulary")]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        command = [sys.executable, __file__, *sizes, "--folder", folder, "--capture", method]
        # At once back to the system with every large array that is freed: else the peak is the allocator's, not ours.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(MIB), "MALLOC_TRIM_THRESHOLD_": str(MIB)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise SystemExit(f"{method}: {done.stderr}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def figures_of(options: argparse.Namespace) -> list[Figure]:
    """Measure every method."""
    raw = 2 * options.length * options.steps * options.vocabulary
    nothing, evidence = apart("none", options), apart("evidence", options)
    figures = [
        Figure("logits, uncompressed", raw / MIB, "MiB"),
        Figure("nothing recorded: peak", nothing["peak"], "MiB"),
        Figure("nothing recorded: run", nothing["seconds"], "s"),
        Figure("evidence: extra memory", evidence["peak"] - nothing["peak"], "MiB"),
        Figure("evidence: run", evidence["seconds"], "s"),
    ]
    for method in options.methods:
        found = apart(method, options)
        figures += [
            Figure(f"{method}: extra memory", found["peak"] - nothing["peak"], "MiB", at_most=MOST_EXTRA_MIB),
            Figure(f"{method}: run", found["seconds"], "s"),
            Figure(f"{method}: logits a second", raw / MIB / found["seconds"], "MiB/s"),
            Figure(f"{method}: read and checked a second", raw / MIB / found["read"], "MiB/s"),
            Figure(f"{method}: uncompressed / file", raw / found["bytes"]),
        ]
        if "error" in found:
            bound = float(method.partition(":")[2] or 0)
            figures.append(Figure(f"{method}: largest error", found["error"], at_most=bound))
    return figures


def main() -> int:
    """Print the figures; return the exit status."""
    parser = argparse.ArgumentParser(description="Memory, time and bytes that capturing all logits takes.")
    parser.add_argument(
        "--length", type=int, default=128, metavar="N", help="positions of the canvas, half of a prompt"
    )
    parser.add_argument("--steps", type=int, default=64, metavar="N")
    parser.add_argument("--vocabulary", type=int, default=126464, metavar="N")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="M", help=" ".join(METHODS))
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="on the disk to write to (default: the system's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--capture", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.capture is not None:
        sizes = (options.length, options.steps, options.vocabulary)
        print(json.dumps(capture(options.capture, *sizes, options.folder)))
        return 0
    settings = {name: getattr(options, name) for name in ("length", "steps", "vocabulary")}
    machine = {**describe_machine(), "numpy": np.__version__}
    return report("logits_memory", {**settings, "dtype": "bfloat16"}, figures_of(options), machine, options.json)


if __name__ == "__main__":
    sys.exit(main())
