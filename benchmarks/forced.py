"""What forced and sampled verification save: a rerun and each of them in turn, in interleaved pairs.

    python benchmarks/forced.py [--pairs N] [--json FILE]
    python benchmarks/forced.py --config llada-8b --init random --device cuda --dtype bfloat16

A run is given as PROMPT+GENERATED/STEPS. A rerun scores the canvas of every step alone; forced verification scores the
golden canvases in batches of the size it chooses itself, each canvas once, also where several steps see it because
there are more steps than positions to commit. A second kind of run, with as many steps as positions, shows it without
that. Both compare logits as well as decisions: the golden has evidence, and the rerun records its own. Forced
verification is exact only where it scores a step again (`scored again`).
Exit status 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from _harness import Figure, count, measure_pairs, ratio_figures, report
from _models import build_loaded, describe_device
from _options import add_model_options

from difftrace.core.comparison import compare_sequences
from difftrace.core.recording import Baseline
from difftrace.core.run import Run
from difftrace.determinism.enforcement import enforce
from difftrace.determinism.environment import fingerprint
from difftrace.models import LoadedModel
from difftrace.sampling import SamplerArguments, generate
from difftrace.verification.forced import verify_forced, verify_sampled
from difftrace.verification.recorded import run_again
from difftrace.verification.runner import threads_that_pay

RUNS = ("12+32/64", "12+32/32", "32+64/64")
SAMPLED = 8

# Times faster than a rerun, for runs of `STEPS`: on a CPU on canvases of up to `SHORT`, on accelerators on all.
STEPS = 64
SHORT = 44
CPU_TARGET = 1.5
ACCELERATOR_TARGET = 4.0
SAMPLED_TARGET = 5.0


@dataclass(frozen=True)
class Size:
    """One run: P prompt tokens, G generated ones, T steps."""

    prompt: int
    generated: int
    steps: int

    def __str__(self) -> str:
        return f"canvas {self.prompt + self.generated}, {self.generated} tokens in {self.steps} steps"


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description="What forced and sampled verification save.")
    add_model_options(parser)
    parser.add_argument("--runs", nargs="+", type=_size, default=[_size(run) for run in RUNS], metavar="P+G/T")
    parser.add_argument("--block-length", type=int, default=16, metavar="B")
    parser.add_argument(
        "--batch", type=int, metavar="N", help="canvases in one forward pass; chosen by itself if absent"
    )
    parser.add_argument("--pairs", type=count, default=20, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    options = parser.parse_args()

    loaded = build_loaded(options)
    figures = []
    for size in options.runs:
        figures += _measure(loaded, size, options)
    settings = {
        **{name: value for name, value in vars(options).items() if name not in ("json", "runs")},
        "config": Path(options.config).name,
        "runs": "; ".join(map(str, options.runs)),
    }
    return report("forced", settings, figures, describe_device(loaded.device), options.json)


def _size(text: str) -> Size:
    prompt, _, rest = text.partition("+")
    generated, _, steps = rest.partition("/")
    return Size(int(prompt), int(generated), int(steps))


def _measure(loaded: LoadedModel, size: Size, options: argparse.Namespace) -> list[Figure]:
    golden = _record(loaded, size, options.block_length)
    forced = partial(verify_forced, loaded, golden, batch=options.batch)
    sampled = partial(verify_sampled, loaded, golden, count=SAMPLED, batch=options.batch)
    verdict, sample = forced(), sampled().sample
    if not verdict.same or not verdict.compares_logits or sample is None:
        raise SystemExit(f"{size}: a clean run is said to diverge: {verdict.first}")
    rerun = partial(_rerun, loaded, golden)
    all_steps, noise = measure_pairs(rerun, forced, options.pairs)
    some_steps, _ = measure_pairs(rerun, sampled, options.pairs)
    accelerated = loaded.device.type != "cpu"
    aimed = size.steps == STEPS and (accelerated or size.prompt + size.generated <= SHORT)
    target = ACCELERATOR_TARGET if accelerated else CPU_TARGET
    return [
        *ratio_figures(f"{size}: forced / rerun", all_steps, 1 / target if aimed else None),
        Figure("  rerun / forced", 1 / all_steps.ratio, "times faster"),
        Figure("  two identical reruns", noise.ratio),
        Figure("  one rerun", statistics.median(all_steps.first) * 1e3, "ms"),
        Figure("  batch chosen", verdict.batch, "canvases"),
        Figure("  scored again as recorded", verdict.rescored, "steps"),
        Figure(
            f"  {SAMPLED} steps sampled / rerun",
            some_steps.ratio,
            at_most=1 / SAMPLED_TARGET if size.steps == STEPS else None,
        ),
        Figure("  rerun / sampled", 1 / some_steps.ratio, "times faster"),
        Figure("  a sampled fault is caught from", sample.caught_from, f"of {size.steps} steps"),
    ]


def _record(loaded: LoadedModel, size: Size, block_length: int) -> Baseline:
    """Run once and return the golden run; with weights of no checkpoint there is no identity to keep."""
    arguments = SamplerArguments(size.steps, size.generated, block_length, seed=0)
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(0, loaded.config.vocab_size, (1, size.prompt), generator=generator)
    prompt[prompt == loaded.config.mask_token_id] = loaded.config.eos_token_id
    with enforce(0, device=loaded.device, threads=threads_that_pay(loaded.model)):
        generation = generate(loaded.model, prompt, **arguments.as_dict())
        environment = fingerprint(loaded.device, loaded.dtype)
    run = Run(
        tuple(generation.trajectories),
        sampler=arguments.identity(),
        environment=environment,
        evidences=tuple(generation.evidence),
    )
    return run.to_baseline(None)


def _rerun(loaded: LoadedModel, golden: Baseline) -> None:
    found = compare_sequences([record.trajectory for record in golden.sequences], run_again(loaded, golden))
    if found is not None:
        raise SystemExit(f"a rerun diverges, so there is nothing to compare: {found}")


if __name__ == "__main__":
    sys.exit(main())
