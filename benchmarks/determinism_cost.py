"""What enforced determinism costs: the same generation with and without it, in interleaved pairs, for each profile.

    python benchmarks/determinism_cost.py [--pairs N] [--threads N] [--json FILE]
    python benchmarks/determinism_cost.py --config llada-8b --init random --device cuda --dtype bfloat16

Some switches must be set before torch's first operation, so that each side of a pair is a process of its own, told
over a pipe to run once more. Both use the same number of threads. There is no target: the figures are for those who
wonder what the profiles cost them.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path

import torch
from _harness import Figure, count, measure_pairs, ratio_figures, report
from _models import build, describe_device
from _options import add_model_options, add_run_options

from difftrace.determinism.devices import profile_of
from difftrace.determinism.enforcement import enforce
from difftrace.determinism.profiles import CPU, PORTABLE
from difftrace.sampling import generate

NONE = "none"


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description="What enforced determinism costs.")
    add_model_options(parser)
    add_run_options(parser)
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="on the CPU, on both sides")
    parser.add_argument("--pairs", type=count, default=40, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--serve", metavar="PROFILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return _serve(options)

    device = torch.device(options.device)
    figures = []
    for profile in (CPU, PORTABLE) if device.type == "cpu" else (profile_of(device),):
        with ExitStack() as stack:
            plain, enforced = (stack.enter_context(_Worker(name)) for name in (NONE, profile))
            cost, noise = measure_pairs(plain.run, enforced.run, options.pairs)
        figures += [
            *ratio_figures(f"{profile}: enforced / not enforced", cost),
            Figure("  two runs not enforced", noise.ratio),
            Figure("  one run not enforced", statistics.median(cost.first) * 1e3, "ms"),
            Figure("  added", cost.added * 1e3, "ms"),
        ]
    settings = {name: value for name, value in vars(options).items() if name not in ("json", "serve")}
    settings["config"] = Path(options.config).name
    return report("determinism_cost", settings, figures, describe_device(device), options.json)


class _Worker:
    """A process that generates under one profile, or none, each time it is told to."""

    def __init__(self, profile: str) -> None:
        command = [sys.executable, __file__, *sys.argv[1:], "--serve", profile]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> _Worker:
        self._expect()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)

    def run(self) -> None:
        """Return when one generation is done."""
        assert self._process.stdin is not None
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        self._expect()

    def _expect(self) -> None:
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise SystemExit(f"a worker ended with {self._process.wait()}")


def _serve(options: argparse.Namespace) -> int:
    """Generate once for every line that comes in, and answer each with one."""
    enforcing = options.serve != NONE
    if enforcing:
        # For the life of this process: what must be there before the first operation.
        enforce(profile=options.serve, device=options.device, threads=options.threads)
    torch.set_num_threads(options.threads)
    model = build(options)
    prompt = torch.randint(0, model.config.vocab_size, (1, options.prompt_length), device="cpu").to(options.device)

    def run() -> None:
        context = (
            enforce(profile=options.serve, device=options.device, threads=options.threads)
            if enforcing
            else nullcontext()
        )
        with context as held:
            generate(
                model,
                prompt,
                steps=options.steps,
                gen_length=options.gen_length,
                block_length=options.block_length,
                seed=0,
            )
            if held is not None:
                held.check()
        if options.device != "cpu":
            torch.accelerator.synchronize()

    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        run()
        print("done", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
