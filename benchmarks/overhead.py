"""What recording costs: the same generation without and with it, in interleaved pairs.

    python benchmarks/overhead.py [--granularity evidence] [--pairs N] [--json FILE]
    python benchmarks/overhead.py --config llada-8b --init random --device cuda --dtype bfloat16
    python benchmarks/overhead.py --engine causal --granularity evidence

Granularities are those of `difftrace.sampling.generate(record=...)`, and of `difftrace.record(keep=...)` with
`--engine`: then a loop that knows nothing of recording runs bare and captured, with the assembly of its trajectories;
`--config` and `--init` only matter to `llada`. Prints the median ratio of wall times beside that
of two identical runs, which shows the noise, and the bytes recorded a step before compression. The paper reports
1.0102 of model time and 1.018 of wall time. Exit status 1 if a target is missed; `none` and `logits` have none.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar, get_args

import torch
from _engines import ENGINES, Engine
from _harness import Figure, Pairs, measure_pairs, report
from _models import add_model_options, add_run_options, build, describe_device

from difftrace.core.evidence import Evidence
from difftrace.core.trajectory import Trajectory
from difftrace.determinism.enforcement import enforce
from difftrace.sampling import generate
from difftrace.sampling.llada import Generation, Record

T = TypeVar("T")

CPU_TARGETS = {"decisions": 1.03, "evidence": 1.10}
ACCELERATOR_TARGETS = {"decisions": 1.002, "evidence": 1.005}
# Of loops written elsewhere, whatever is kept.
CAPTURE_TARGETS = {"cpu": 1.05, "accelerator": 1.003}
# Of a step that commits one token: 220 for the step, 20 for the token.
EVIDENCE_BYTES_TARGET = 250.0
PAPER_MODEL_TIME = 1.0102
PAPER_WALL_TIME = 1.018


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description="What recording a run costs.")
    parser.add_argument("--granularity", default="decisions", choices=get_args(Record), help="what is recorded")
    parser.add_argument("--engine", choices=tuple(ENGINES), help="capture this loop instead of our own sampler's")
    add_model_options(parser)
    add_run_options(parser)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N", help="on the CPU")
    parser.add_argument("--pairs", type=int, default=60, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    options = parser.parse_args()

    if options.engine and options.granularity not in ("decisions", "evidence"):
        parser.error("an engine's loop is recorded with --granularity decisions or evidence")
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    with enforce(device=device):
        figures = _captured(options, device) if options.engine else _recorded(options, device)
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    settings["config"] = Path(options.config).name
    return report("overhead", settings, figures, describe_device(device), options.json)


def _recorded(options: argparse.Namespace, device: torch.device) -> list[Figure]:
    """Measure this package's sampler."""
    model = build(options)
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(0, model.config.vocab_size, (1, options.prompt_length), generator=generator).to(device)

    def run(record: Record) -> Generation:
        return _done(
            generate(
                model,
                prompt,
                steps=options.steps,
                gen_length=options.gen_length,
                block_length=options.block_length,
                seed=0,
                record=record,
            ),
            device,
        )

    recorded = run(options.granularity)
    recording, noise = measure_pairs(lambda: run("none"), lambda: run(options.granularity), options.pairs)
    return [
        *_times(recording, noise, _target(device, options.granularity)),
        *_sizes(recorded.trajectories, recorded.evidence, options.steps, options.gen_length),
        *_logits(recorded, options.steps),
        Figure("the paper, of model time", PAPER_MODEL_TIME),
        Figure("the paper, of wall time", PAPER_WALL_TIME),
    ]


def _captured(options: argparse.Namespace, device: torch.device) -> list[Figure]:
    """Measure a loop written elsewhere."""
    engine: Engine = ENGINES[options.engine](options)
    captured = engine.recorded(options.granularity)
    recording, noise = measure_pairs(
        lambda: _done(engine.loop(), device), lambda: engine.recorded(options.granularity), options.pairs
    )
    target = CAPTURE_TARGETS["cpu" if device.type == "cpu" else "accelerator"]
    steps, events = captured.trajectories[0].num_steps, captured.trajectories[0].num_events
    return [
        *_times(recording, noise, target),
        Figure("steps", steps),
        *_sizes(captured.trajectories, captured.evidences or (), steps, events),
    ]


def _done(result: T, device: torch.device) -> T:
    if device.type != "cpu":
        # Without recording nothing waits for the device, so the clock has to.
        torch.accelerator.synchronize(device)
    return result


def _times(recording: Pairs, noise: Pairs, target: float | None) -> list[Figure]:
    return [
        Figure("recording / not recording", recording.ratio, at_most=target),
        Figure("  standard error", recording.error),
        Figure("two identical runs", noise.ratio),
        Figure("  standard error", noise.error),
        Figure("one run without recording", statistics.median(recording.first) * 1e3, "ms"),
        Figure("added by recording", recording.added * 1e6, "µs"),
    ]


def _target(device: torch.device, granularity: str) -> float | None:
    return (CPU_TARGETS if device.type == "cpu" else ACCELERATOR_TARGETS).get(granularity)


def _sizes(trajectories: Sequence[Trajectory], evidence: Sequence[Evidence], steps: int, events: int) -> list[Figure]:
    figures = []
    if trajectories:
        figures.append(Figure("decisions, encoded", len(trajectories[0].to_bytes()) / steps, "bytes a step"))
    if evidence:
        size = sum(column.nbytes for column in vars(evidence[0]).values())
        target = EVIDENCE_BYTES_TARGET if events == steps else None
        figures.append(Figure("evidence, as columns", size / steps, "bytes a step", at_most=target))
    return figures


def _logits(recorded: Generation, steps: int) -> list[Figure]:
    if not recorded.logits:
        return []
    logits = recorded.logits[0]
    return [Figure("logits", logits.numel() * logits.element_size() / steps, "bytes a step")]


if __name__ == "__main__":
    sys.exit(main())
