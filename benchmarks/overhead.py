"""What recording costs: the same generation without and with it, in interleaved pairs.

    python benchmarks/overhead.py [--granularity evidence] [--pairs N] [--json FILE]
    python benchmarks/overhead.py --config llada-8b --init random --device cuda --dtype bfloat16

Granularities are those of `difftrace.sampling.generate(record=...)`. Prints the median ratio of wall times beside that
of two identical runs, which shows the noise, and the bytes recorded a step before compression. The paper reports
1.0102 of model time and 1.018 of wall time. Exit status 1 if a target is missed; `none` and `logits` have none.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import get_args

import torch
from _harness import Figure, measure_pairs, report
from _models import add_model_options, add_run_options, build, describe_device

from difftrace.determinism.enforcement import enforce
from difftrace.sampling import generate
from difftrace.sampling.llada import Generation, Record

CPU_TARGETS = {"decisions": 1.03, "evidence": 1.10}
ACCELERATOR_TARGETS = {"decisions": 1.002, "evidence": 1.005}
# Of a step that commits one token: 220 for the step, 20 for the token.
EVIDENCE_BYTES_TARGET = 250.0
PAPER_MODEL_TIME = 1.0102
PAPER_WALL_TIME = 1.018


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description="What recording a run costs.")
    parser.add_argument("--granularity", default="decisions", choices=get_args(Record), help="what is recorded")
    add_model_options(parser)
    add_run_options(parser)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N", help="on the CPU")
    parser.add_argument("--pairs", type=int, default=60, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
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

    with enforce(device=device):
        recorded = run(options.granularity)
        recording, noise = measure_pairs(lambda: run("none"), lambda: run(options.granularity), options.pairs)

    figures = [
        Figure("recording / not recording", recording.ratio, at_most=_target(device, options.granularity)),
        Figure("  standard error", recording.error),
        Figure("two identical runs", noise.ratio),
        Figure("  standard error", noise.error),
        Figure("one run without recording", statistics.median(recording.first) * 1e3, "ms"),
        Figure("added by recording", recording.added * 1e6, "µs"),
        *_sizes(recorded, options.steps, options.gen_length),
        Figure("the paper, of model time", PAPER_MODEL_TIME),
        Figure("the paper, of wall time", PAPER_WALL_TIME),
    ]
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    settings["config"] = Path(options.config).name
    return report("overhead", settings, figures, describe_device(device), options.json)


def _target(device: torch.device, granularity: str) -> float | None:
    return (CPU_TARGETS if device.type == "cpu" else ACCELERATOR_TARGETS).get(granularity)


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
