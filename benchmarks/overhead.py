"""What recording costs: the same generation without and with it, in interleaved pairs.

    python benchmarks/overhead.py [--granularity evidence] [--pairs N] [--json FILE]
    python benchmarks/overhead.py --granularity tokens tokens+masks evidence full --svg FILE
    python benchmarks/overhead.py --config llada-8b --init random --device cuda --dtype bfloat16

Granularities are those of `difftrace.sampling.generate(record=...)`. Prints the median ratio of wall times beside that
of two identical runs, which shows the noise, and the bytes recorded a step before compression. The paper reports
1.0091 of model time for tokens and 1.0110 for tokens and masks (128 tokens in 64 steps of LLaDA-8B on an MI300X).
Exit status 1 if a target is missed; `none` and `logits` have none.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import _paper
import torch
from _harness import Figure, count, measure_pairs, ratio_figures, report
from _models import add_model_options, add_run_options, build, describe_device
from _svg import Bar, add_svg_option, draw

from difftrace.determinism.enforcement import enforce
from difftrace.sampling import generate
from difftrace.sampling.llada import Generation, Record

CPU_TARGETS = {"decisions": 1.03, "evidence": 1.10}
ACCELERATOR_TARGETS = {"decisions": 1.002, "evidence": 1.005}
# Of a step that commits one token: 220 for the step, 20 for the token.
EVIDENCE_BYTES_TARGET = 250.0


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description="What recording a run costs.")
    parser.add_argument(
        "--granularity", default=["decisions"], nargs="+", choices=get_args(Record), help="what is recorded"
    )
    add_model_options(parser)
    add_run_options(parser)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N", help="on the CPU")
    parser.add_argument("--pairs", type=count, default=60, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    add_svg_option(parser)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    model = build(options)
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(0, model.config.vocab_size, (1, options.prompt_length), generator=generator).to(device)

    def run(record: Record) -> Generation:
        generation = generate(
            model,
            prompt,
            steps=options.steps,
            gen_length=options.gen_length,
            block_length=options.block_length,
            seed=0,
            record=record,
        )
        if device.type != "cpu":
            # Without recording nothing waits for the device, so the clock has to.
            torch.accelerator.synchronize(device)
        return generation

    figures, bars = [], []
    with enforce(device=device):
        for granularity in options.granularity:
            some, bar = _measure(granularity, run, device, options)
            figures += some
            bars.append(bar)
            published = _paper.OVERHEAD.get(granularity)
            if published is not None:
                figures.append(Figure(f"the paper, of model time, {granularity}", published))
                bars.append(Bar(f"paper, {granularity}, published", 100 * (published - 1), ours=False))
    settings = {name: value for name, value in vars(options).items() if name not in ("json", "svg")}
    settings["config"] = Path(options.config).name
    settings["granularity"] = " ".join(options.granularity)
    machine = describe_device(device)
    draw(options.svg, f"What recording adds to a run of {settings['config']}", "per cent of its time", bars, machine)
    return report("overhead", settings, figures, machine, options.json)


def _measure(
    granularity: Record, run: Callable[[Record], Generation], device: torch.device, options: argparse.Namespace
) -> tuple[list[Figure], Bar]:
    """Return the figures of one granularity, whose name they have where there are several."""
    recorded = run(granularity)
    recording, noise = measure_pairs(lambda: run("none"), lambda: run(granularity), options.pairs)
    what = f"{granularity}: " if len(options.granularity) > 1 else ""
    figures = [
        *ratio_figures(f"{what}recording / not recording", recording, _target(device, granularity)),
        *ratio_figures("two identical runs", noise),
        Figure("one run without recording", statistics.median(recording.first) * 1e3, "ms"),
        Figure("added by recording", recording.added * 1e6, "µs"),
        *_sizes(recorded, options.steps, options.gen_length),
    ]
    return figures, Bar(granularity, max(0.0, 100 * (recording.ratio - 1)))


def _target(device: torch.device, granularity: str) -> float | None:
    names = {"tokens": "decisions", "tokens+masks": "decisions"}
    targets = CPU_TARGETS if device.type == "cpu" else ACCELERATOR_TARGETS
    return targets.get(names.get(granularity, granularity))


def _sizes(recorded: Generation, steps: int, tokens: int) -> list[Figure]:
    figures = []
    if recorded.trajectories:
        figures.append(Figure("decisions, encoded", len(recorded.trajectories[0].to_bytes()) / steps, "bytes a step"))
    if recorded.evidence:
        size = sum(column.nbytes for column in vars(recorded.evidence[0]).values())
        target = EVIDENCE_BYTES_TARGET if tokens == steps else None
        figures.append(Figure("evidence, as columns", size / steps, "bytes a step", at_most=target))
    if recorded.logits:
        logits = recorded.logits[0]
        figures.append(Figure("logits", logits.numel() * logits.element_size() / steps, "bytes a step"))
    return figures


if __name__ == "__main__":
    sys.exit(main())
