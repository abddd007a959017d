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
from _harness import Figure, describe_machine, measure_pairs, report

from difftrace.determinism.devices import platform_key
from difftrace.determinism.enforcement import enforce
from difftrace.models import load_model
from difftrace.models.config import LLaDAConfig
from difftrace.models.llada import LLaDAModel
from difftrace.models.reference import reference_model_path
from difftrace.sampling import generate
from difftrace.sampling.llada import Generation, Record

CPU_TARGETS = {"decisions": 1.03, "evidence": 1.10}
ACCELERATOR_TARGETS = {"decisions": 1.002, "evidence": 1.005}
# Of a step that commits one token: 220 for the step, 20 for the token.
EVIDENCE_BYTES_TARGET = 250.0
PAPER_MODEL_TIME = 1.0102
PAPER_WALL_TIME = 1.018

LLADA_8B = LLaDAConfig(
    d_model=4096,
    n_layers=32,
    n_heads=32,
    n_kv_heads=32,
    mlp_hidden_size=12288,
    vocab_size=126464,
    embedding_size=126464,
    max_sequence_length=4096,
    rope_theta=500000.0,
    rms_norm_eps=1e-5,
    mask_token_id=126336,
    eos_token_id=126081,
    pad_token_id=126081,
)


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description="What recording a run costs.")
    parser.add_argument("--granularity", default="decisions", choices=get_args(Record), help="what is recorded")
    parser.add_argument("--config", default="reference", help="reference, llada-8b, or a model folder")
    parser.add_argument("--init", choices=("stored", "random"), default="stored", help="where the weights come from")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--prompt-length", type=int, default=16, metavar="P")
    parser.add_argument("--gen-length", type=int, default=32, metavar="L")
    parser.add_argument("--steps", type=int, default=32, metavar="T")
    parser.add_argument("--block-length", type=int, default=16, metavar="B")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N", help="on the CPU")
    parser.add_argument("--pairs", type=int, default=60, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    model = _model(options.config, options.init, getattr(torch, options.dtype), device)
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

    with enforce():
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
    if settings["config"] not in ("reference", "llada-8b"):
        settings["config"] = Path(options.config).name
    machine = {
        **describe_machine(),
        "torch": torch.__version__,
        "platform": platform_key(device),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }
    return report("overhead", settings, figures, machine, options.json)


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


def _model(config: str, init: str, dtype: torch.dtype, device: torch.device) -> LLaDAModel:
    folder = reference_model_path() if config == "reference" else Path(config)
    if init == "random":
        return _random(
            LLADA_8B if config == "llada-8b" else LLaDAConfig.from_file(folder / "config.json"), dtype, device
        )
    if config == "llada-8b":
        raise SystemExit("llada-8b has no stored weights here: add --init random, or name a model folder")
    return load_model(folder, dtype=dtype, device=device).model


def _random(config: LLaDAConfig, dtype: torch.dtype, device: torch.device) -> LLaDAModel:
    """Build the architecture with random weights, directly where and as it is to run: 8B fit nowhere twice."""
    with torch.device("meta"):
        model = LLaDAModel(config).to(dtype)
    model.to_empty(device=device).eval().requires_grad_(False)
    generator = torch.Generator(device).manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.fill_(1.0)
        else:
            parameter.normal_(0.0, 0.02, generator=generator)
    return model


if __name__ == "__main__":
    sys.exit(main())
