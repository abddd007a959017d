"""What capturing a run step by step costs, beside the paper's code on the same tensors.

    python benchmarks/capture.py [--paper FOLDER] [--runs N] [--device cpu] [--json FILE] [--svg FILE]
    python benchmarks/capture.py --config reference --runs 100
    python benchmarks/capture.py --config llada-8b --init random --device cuda --dtype bfloat16 --batch 32

128 tokens in 64 steps, random or a model's with `--config`, handed over as tensors, through the paper's interface: what
`capture_step` takes of a loop, and what `end_trajectory` takes after it, which brings everything to the host and checks
masks against tokens. The paper reports 11.9 ms (tokens) and 14.6 ms (tokens and masks) for such a run of LLaDA-8B on an
MI300X, all of it in the loop, which waits for the device; that is 0.91 % and 1.10 % of the run. With `--paper` its code
runs here, on the CPU. What recording costs this library's own sampler is measured by overhead.py.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import _paper
import torch
from _harness import Figure, count, report
from _models import describe_device
from _runs import Runs
from _sources import add_source_options, runs_of, settings_of, title_of
from _svg import Bar, add_svg_option, draw

from difftrace.core.trajectory import TrajectoryCapture
from difftrace.utils.config import CaptureConfig, CaptureGranularity

GRANULARITIES = {"tokens": CaptureGranularity.TOKENS_ONLY, "tokens+masks": CaptureGranularity.TOKENS_AND_MASKS}


def measure(runs: Runs, granularity: CaptureGranularity, device: str) -> tuple[float, float]:
    """Return median milliseconds in the loop and after it."""
    within, after = [], []
    for run in range(len(runs)):
        positions, tokens = (torch.from_numpy(column[run]).to(device) for column in (runs.positions, runs.tokens))
        masks = [torch.from_numpy(mask).to(device) for mask in runs.masks(run)]
        output = torch.from_numpy(runs.outputs[run]).to(device)
        capture = TrajectoryCapture(CaptureConfig(granularity=granularity))
        start = time.perf_counter()
        capture.begin_trajectory(
            str(run),
            runs.prompts[run],
            num_diffusion_steps=runs.steps,
            sequence_length=runs.length,
            mask_token_id=runs.mask,
        )
        for step in range(runs.steps):
            capture.capture_step(step, positions[step], tokens[step], masks[step])
        middle = time.perf_counter()
        ended = capture.end_trajectory(output)
        end = time.perf_counter()
        if ended.trajectory != runs.trajectory(run):
            raise SystemExit("what was captured is not the run")
        within.append((middle - start) * 1e3)
        after.append((end - middle) * 1e3)
    return statistics.median(within), statistics.median(after)


def main() -> int:
    """Print the figures; return the exit status."""
    parser = argparse.ArgumentParser(description="What capturing a run costs, beside the paper's.")
    parser.add_argument("--runs", type=count, default=200, metavar="N")
    add_source_options(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    _paper.add_paper_option(parser)
    add_svg_option(parser)
    options = parser.parse_args()
    runs = runs_of(options, options.runs)
    theirs = _paper.measured(options.paper, runs)
    figures, bars = [], []
    for name, granularity in GRANULARITIES.items():
        within, after = measure(runs, granularity, options.device)
        figures += [
            Figure(f"{name}: in the loop", within, "ms"),
            Figure("  after it", after, "ms"),
            Figure("  the paper's, published, MI300X", _paper.CAPTURE_MS[name], "ms"),
        ]
        bars += [Bar(f"{name}, in the loop", within), Bar(f"{name}, after it", after)]
        if theirs is not None:
            figures.append(Figure("  the paper's, here, CPU", theirs.capture_ms[name], "ms"))
            bars.append(Bar(f"paper, {name}, here", theirs.capture_ms[name], ours=False))
        bars.append(Bar(f"paper, {name}, MI300X, published", _paper.CAPTURE_MS[name], ours=False))
    machine = describe_device(torch.device(options.device))
    draw(options.svg, title_of(options, "Capturing a run of 128 tokens in 64 steps"), "milliseconds", bars, machine)
    settings = {"runs": options.runs, **settings_of(options), "device": options.device}
    return report("capture", settings, figures, machine, options.json)


if __name__ == "__main__":
    sys.exit(main())
