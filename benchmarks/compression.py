"""What a run and its logits take as bytes: plain, lossless, within an error bound, and by the paper's code on the same.

    python benchmarks/compression.py [--paper FOLDER] [--runs N] [--json FILE] [--svg FILE] [--errors-svg FILE]
    python benchmarks/compression.py --config reference --runs 100
    python benchmarks/compression.py --config llada-8b --init random --device cuda --dtype bfloat16 --batch 32

128 tokens after a prompt of 32, two committed at each of 64 steps: random ones, or a model's with `--config`. Sizes
leave the prompt out. The plain columns are steps, positions and tokens as 32-bit integers; masks and canvases follow
from them and take nothing. Logits are those of the paper's benchmark in kind: normally distributed float16, [128, 4000]
a step, wider from step to step. Exit status 1 if a target is missed, among them that no error exceeds its bound.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import _paper
import numpy as np
import numpy.typing as npt
from _harness import Figure, count, report
from _runs import Runs
from _sources import add_source_options, machine_of, runs_of, settings_of, title_of
from _svg import Bar, add_svg_option, draw

from difftrace.core.logits_codec import DenseCodec
from difftrace.core.logits_dtypes import dtype_named
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


def random_logits(steps: int) -> npt.NDArray[np.float16]:
    """Return logits [steps, 128, 4000] whose spread grows from 0.5 to 6.8, as over the 64 steps of a run."""
    rng = np.random.default_rng(0)
    spread = np.linspace(0.5, 6.8, steps, dtype=np.float32).reshape(-1, 1, 1)
    return (rng.standard_normal((steps, 128, 4000), dtype=np.float32) * spread).astype(np.float16)


def encoded_logits(logits: npt.NDArray[np.float16], bound: float | None) -> tuple[int, float]:
    """Return their bytes and the largest error of what is read back."""
    dtype = dtype_named("float16")
    codec = DenseCodec(dtype, bound)
    size, error = 0, 0.0
    for step in logits:
        payload, _ = codec.encode(step.view("<u2"))
        read = dtype.values(codec.decode(payload, (step.shape[0], step.shape[1])))
        size += len(payload)
        error = max(error, float(np.abs(read.astype(np.float64) - step.astype(np.float64)).max()))
    return size, error


def logits_figures(logits: npt.NDArray[np.float16], theirs: _paper.Measured | None) -> tuple[list[Figure], list[Bar]]:
    """Return the figures of logits, and the errors as bars."""
    size, error = encoded_logits(logits, None)
    figures = [
        Figure("logits, lossless: times smaller", logits.nbytes / size),
        Figure("  largest error", error, at_most=0.0),
    ]
    if theirs is not None:
        figures.append(
            Figure("  the paper's lossless, here: times smaller", logits.nbytes / theirs.lossless_logits_bytes)
        )
    bars = []
    for bound, published in _paper.LOSSY_ERRORS.items():
        size, error = encoded_logits(logits, bound)
        figures += [
            Figure(f"logits within {bound}: times smaller", logits.nbytes / size),
            Figure("  largest error / bound", error / bound, at_most=1.0),
            Figure("  the paper's, published", published / bound),
        ]
        bars += [
            Bar(f"within {bound}", error / bound),
            Bar(f"paper, within {bound}, published", published / bound, ours=False),
        ]
        if theirs is not None:
            there = theirs.lossy_logits[str(bound)]
            figures += [
                Figure("  the paper's, here", there["error"] / bound),
                Figure("  the paper's, here: times smaller", logits.nbytes / there["bytes"]),
            ]
            bars.append(Bar(f"paper, within {bound}, here", there["error"] / bound, ours=False))
    return figures, bars


def main() -> int:
    """Print the figures; return the exit status."""
    parser = argparse.ArgumentParser(description="Bytes of a run, beside the paper's.")
    parser.add_argument("--runs", type=count, default=500, metavar="N")
    parser.add_argument("--logits-steps", type=count, default=4, metavar="S")
    add_source_options(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    _paper.add_paper_option(parser)
    add_svg_option(parser)
    parser.add_argument("--errors-svg", type=Path, metavar="FILE", help="also draw the errors of logits into FILE")
    options = parser.parse_args()
    runs = runs_of(options, options.runs)
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
    logits = random_logits(options.logits_steps)
    theirs = _paper.measured(options.paper, runs, logits)
    if theirs is not None:
        figures += [
            Figure("the paper's none, here", theirs.uncompressed_bytes, "bytes"),
            Figure("the paper's lossless, here", theirs.compressed_bytes, "bytes"),
            Figure("the paper's compressing, here", theirs.compress_ms, "ms"),
        ]
        bars.append(Bar("paper, lossless, here", theirs.compressed_bytes, ours=False))
    more, errors = logits_figures(logits, theirs)
    figures += more
    machine = machine_of(options)
    bars += [Bar("plain columns", plain), Bar("paper, none, published", _paper.UNCOMPRESSED_BYTES, ours=False)]
    title = title_of(options, "A run of 128 tokens in 64 steps: tokens and masks")
    draw(options.svg, title, "bytes", bars, machine)
    draw(options.errors_svg, "Logits within an error bound", "largest error / bound", errors, machine)
    settings = {"runs": options.runs, **settings_of(options), "logits_steps": options.logits_steps}
    return report("compression", settings, figures, machine, options.json)


if __name__ == "__main__":
    sys.exit(main())
