"""What a run takes as bytes: as plain columns, encoded, and by the paper's code on the same runs.

    python benchmarks/compression.py [--paper FOLDER] [--runs N] [--json FILE] [--svg FILE]

128 tokens after a prompt of 32, two committed at each of 64 steps. Sizes leave the prompt out. The plain columns are
steps, positions and tokens as 32-bit integers; masks and canvases follow from them and take nothing. Exit status 1 if
a target is missed or an encoding does not read back exactly.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import _paper
import numpy as np
from _harness import Figure, describe_machine, report
from _runs import Runs, random_runs
from _svg import Bar, add_svg_option, draw

from difftrace.core.trajectory import Trajectory

MOST_BYTES = 450


def measure(runs: Runs) -> tuple[float, float, float]:
    """Return medians: plain bytes, encoded bytes without the prompt, milliseconds of encoding."""
    plain, encoded, times = [], [], []
    for run in range(len(runs)):
        trajectory = runs.trajectory(run)
        start = time.perf_counter()
        data = trajectory.to_bytes()
        times.append((time.perf_counter() - start) * 1e3)
        if Trajectory.from_bytes(data) != trajectory:
            raise SystemExit("an encoding does not read back exactly")
        # What the same run takes without its prompt.
        prompt = runs.prompts.shape[1]
        bare = Trajectory(
            prompt=[],
            initial=trajectory.initial[prompt:],
            steps=trajectory.steps,
            positions=trajectory.positions - prompt,
            tokens=trajectory.tokens,
            num_steps=trajectory.num_steps,
        )
        encoded.append(len(bare.to_bytes()))
        plain.append(trajectory.steps.nbytes + trajectory.positions.nbytes + trajectory.tokens.nbytes)
    return statistics.median(plain), statistics.median(encoded), statistics.median(times)


def main() -> int:
    """Print the figures; return the exit status."""
    parser = argparse.ArgumentParser(description="Bytes of a run, beside the paper's.")
    parser.add_argument("--runs", type=int, default=500, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    _paper.add_paper_option(parser)
    add_svg_option(parser)
    options = parser.parse_args()
    runs = random_runs(options.runs)
    plain, encoded, taken = measure(runs)
    figures = [
        Figure("plain columns", plain, "bytes"),
        Figure("the paper's none, published", _paper.UNCOMPRESSED_BYTES, "bytes"),
        Figure("lossless", encoded, "bytes", at_most=MOST_BYTES),
        Figure("the paper's lossless, published", _paper.COMPRESSED_BYTES, "bytes"),
        Figure("encoding, prompt included", taken, "ms"),
        Figure("the paper's compressing, published", _paper.COMPRESS_MS, "ms"),
    ]
    bars = [Bar("lossless", encoded), Bar("paper, lossless, published", _paper.COMPRESSED_BYTES, ours=False)]
    theirs = _paper.measured(options.paper, runs)
    if theirs is not None:
        figures += [
            Figure("the paper's none, here", theirs.uncompressed_bytes, "bytes"),
            Figure("the paper's lossless, here", theirs.compressed_bytes, "bytes"),
            Figure("the paper's compressing, here", theirs.compress_ms, "ms"),
        ]
        bars.append(Bar("paper, lossless, here", theirs.compressed_bytes, ours=False))
    machine = {**describe_machine(), "numpy": np.__version__}
    bars += [Bar("plain columns", plain), Bar("paper, none, published", _paper.UNCOMPRESSED_BYTES, ours=False)]
    draw(options.svg, "Bytes of a run, L=128, T=64, tokens and masks", "bytes", bars, f"{machine['cpu']}")
    settings = {"runs": options.runs, "generated": 128, "steps": 64, "prompt": 32}
    return report("compression", settings, figures, machine, options.json)


if __name__ == "__main__":
    sys.exit(main())
