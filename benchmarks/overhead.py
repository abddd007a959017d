"""What recording costs: the same generation without and with it, in interleaved pairs.

    python benchmarks/overhead.py [--granularity evidence] [--pairs N] [--json FILE]
    python benchmarks/overhead.py --granularity tokens tokens+masks evidence full --svg FILE
    python benchmarks/overhead.py --config llada-8b --init random --device cuda --dtype bfloat16
    python benchmarks/overhead.py --engine causal --granularity evidence

Granularities are those of `difftrace.sampling.generate(record=...)`, and of `difftrace.record(keep=...)` with
`--engine`: then a loop that knows nothing of recording runs bare and captured, with the assembly of its trajectories;
`--config` and `--init` only matter to `llada`. Prints the median ratio of wall times beside that of two identical runs,
which shows the noise, and the bytes recorded a step before compression. The paper reports 1.0091 of model time for
tokens and 1.0110 for tokens and masks (128 tokens in 64 steps of LLaDA-8B on an MI300X). Exit status 1 if a target is
missed; `none` and `logits` have none.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import _paper
import torch
from _engines import ENGINES
from _harness import Figure, count, measure_pairs, ratio_figures, report
from _models import build, describe_device
from _options import add_model_options, add_run_options
from _svg import Bar, add_svg_option, draw

from difftrace.core.evidence import Evidence
from difftrace.core.trajectory import Trajectory
from difftrace.determinism.enforcement import enforce
from difftrace.sampling import generate
from difftrace.sampling.llada import Record

T = TypeVar("T")

CPU_TARGETS = {"decisions": 1.03, "evidence": 1.10}
ACCELERATOR_TARGETS = {"decisions": 1.002, "evidence": 1.005}
# Of loops written elsewhere, whatever is kept.
CAPTURE_TARGETS = {"cpu": 1.05, "accelerator": 1.003}
# Of a step that commits one token: 220 for the step, 20 for the token.
EVIDENCE_BYTES_TARGET = 250.0


@dataclass(frozen=True)
class Recorded:
    """What one run left: trajectories, evidence and logits of each sequence, as far as they were asked for."""

    trajectories: Sequence[Trajectory]
    evidence: Sequence[Evidence] = ()
    logits: Sequence[torch.Tensor] = ()


@dataclass(frozen=True)
class Subject:
    """A loop that runs `bare` or `recorded` at a granularity, and what the ratio of the two may be at most."""

    bare: Callable[[], object]
    recorded: Callable[[Any], Recorded]
    targets: Callable[[str], float | None]


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description="What recording a run costs.")
    parser.add_argument(
        "--granularity", default=["decisions"], nargs="+", choices=get_args(Record), help="what is recorded"
    )
    parser.add_argument("--engine", choices=tuple(ENGINES), help="capture this loop instead of our own sampler's")
    add_model_options(parser)
    add_run_options(parser)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N", help="on the CPU")
    parser.add_argument("--pairs", type=count, default=60, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    add_svg_option(parser)
    options = parser.parse_args()

    if options.engine and not {"decisions", "evidence"}.issuperset(options.granularity):
        parser.error("an engine's loop is recorded with --granularity decisions or evidence")
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    figures, bars = [], []
    with enforce(device=device):
        subject = _engine(options, device) if options.engine else _sampler(options, device)
        for granularity in options.granularity:
            some, bar = _measure(granularity, subject, options)
            figures += some
            bars.append(bar)
            published = None if options.engine else _paper.OVERHEAD.get(granularity)
            if published is not None:
                figures.append(Figure(f"the paper, of model time, {granularity}", published))
                bars.append(Bar(f"paper, {granularity}, published", 100 * (published - 1), ours=False))
    settings = {name: value for name, value in vars(options).items() if name not in ("json", "svg")}
    settings["config"] = Path(options.config).name
    settings["granularity"] = " ".join(options.granularity)
    machine = describe_device(device)
    what = options.engine or settings["config"]
    draw(options.svg, f"What recording adds to a run of {what}", "per cent of its time", bars, machine)
    return report("overhead", settings, figures, machine, options.json)


def _sampler(options: argparse.Namespace, device: torch.device) -> Subject:
    """Return this package's sampler."""
    model = build(options)
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(0, model.config.vocab_size, (1, options.prompt_length), generator=generator).to(device)

    def run(record: Record) -> Recorded:
        made = generate(
            model,
            prompt,
            steps=options.steps,
            gen_length=options.gen_length,
            block_length=options.block_length,
            seed=0,
            record=record,
        )
        return _done(Recorded(made.trajectories, made.evidence, made.logits), device)

    names = {"tokens": "decisions", "tokens+masks": "decisions"}
    targets = CPU_TARGETS if device.type == "cpu" else ACCELERATOR_TARGETS
    return Subject(lambda: run("none"), run, lambda granularity: targets.get(names.get(granularity, granularity)))


def _engine(options: argparse.Namespace, device: torch.device) -> Subject:
    """Return a loop written elsewhere."""
    engine = ENGINES[options.engine](options)

    def recorded(granularity: Any) -> Recorded:
        captured = engine.recorded(granularity)
        return Recorded(captured.trajectories, captured.evidences or ())

    target = CAPTURE_TARGETS["cpu" if device.type == "cpu" else "accelerator"]
    return Subject(lambda: _done(engine.loop(), device), recorded, lambda granularity: target)


def _done(result: T, device: torch.device) -> T:
    if device.type != "cpu":
        # Without recording nothing waits for the device, so the clock has to.
        torch.accelerator.synchronize(device)
    return result


def _measure(granularity: str, subject: Subject, options: argparse.Namespace) -> tuple[list[Figure], Bar]:
    """Return the figures of one granularity, whose name they have where there are several."""
    left = subject.recorded(granularity)
    recording, noise = measure_pairs(subject.bare, lambda: subject.recorded(granularity), options.pairs)
    what = f"{granularity}: " if len(options.granularity) > 1 else ""
    figures = [
        *ratio_figures(f"{what}recording / not recording", recording, subject.targets(granularity)),
        *ratio_figures("two identical runs", noise),
        Figure("one run without recording", statistics.median(recording.first) * 1e3, "ms"),
        Figure("added by recording", recording.added * 1e6, "µs"),
        *_sizes(left, options),
    ]
    return figures, Bar(granularity, max(0.0, 100 * (recording.ratio - 1)))


def _sizes(left: Recorded, options: argparse.Namespace) -> list[Figure]:
    steps, events = options.steps, options.gen_length
    figures = []
    if left.trajectories:
        steps, events = left.trajectories[0].num_steps, left.trajectories[0].num_events
        figures.append(Figure("steps", steps))
        figures.append(Figure("decisions, encoded", len(left.trajectories[0].to_bytes()) / steps, "bytes a step"))
    if left.evidence:
        size = sum(column.nbytes for column in vars(left.evidence[0]).values())
        target = EVIDENCE_BYTES_TARGET if events == steps else None
        figures.append(Figure("evidence, as columns", size / steps, "bytes a step", at_most=target))
    if left.logits:
        logits = left.logits[0]
        figures.append(Figure("logits", logits.numel() * logits.element_size() / steps, "bytes a step"))
    return figures


if __name__ == "__main__":
    sys.exit(main())
