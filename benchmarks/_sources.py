"""Where the runs of a benchmark come from: random arrays, or a model that denoises.

Random ones have LLaDA-8B's vocabulary and as many bits of order and tokens as a run can have: the hardest to compress,
and made in no time. Those of a model are what is stored in earnest.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from _harness import Scalar, count, describe_machine
from _options import add_model_options
from _runs import Runs, random_runs

RANDOM = "random"
PROMPT, GENERATED, STEPS = 32, 128, 64


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that the functions here read."""
    add_model_options(parser, config=RANDOM, others="random (arrays and no model), ")
    parser.add_argument("--batch", type=count, default=1, metavar="N", help="runs that a model denoises at once")


def runs_of(options: argparse.Namespace, number: int) -> Runs:
    """Return `number` runs of 128 tokens in 64 steps after a prompt of 32, two tokens a step."""
    if options.config == RANDOM:
        return random_runs(number, prompt=PROMPT, generated=GENERATED, steps=STEPS)
    import torch
    from _models import build

    from difftrace.sampling import generate

    model = build(options)
    mask = model.config.mask_token_id
    rng = np.random.default_rng(0)
    # A mask in a prompt would be filled as well.
    prompts = rng.choice(np.delete(np.arange(model.config.vocab_size), mask), (number, PROMPT))
    trajectories, outputs = [], []
    for start in range(0, number, options.batch):
        made = generate(
            model,
            torch.from_numpy(prompts[start : start + options.batch]).to(options.device),
            steps=STEPS,
            gen_length=GENERATED,
            block_length=GENERATED,
            temperature=1.0,
            seed=start,
            record="decisions",
        )
        trajectories += made.trajectories
        outputs.append(made.tokens.cpu().numpy())
    shape = number, STEPS, GENERATED // STEPS
    if any(one.steps.tolist() != np.repeat(np.arange(STEPS), shape[2]).tolist() for one in trajectories):
        raise SystemExit("the model's runs do not commit equally many tokens at each step")
    positions, tokens = (
        np.stack([getattr(one, name) for one in trajectories]).astype(np.int64).reshape(shape)
        for name in ("positions", "tokens")
    )
    return Runs(prompts, positions, tokens, np.concatenate(outputs).astype(np.int64), mask)


def settings_of(options: argparse.Namespace) -> dict[str, Scalar]:
    """Return what the runs depend on."""
    shape: dict[str, Scalar] = {"generated": GENERATED, "steps": STEPS, "prompt": PROMPT}
    if options.config == RANDOM:
        return {"config": RANDOM, **shape}
    names = ("init", "device", "dtype", "batch")
    return {"config": Path(options.config).name, **{name: getattr(options, name) for name in names}, **shape}


def title_of(options: argparse.Namespace, title: str) -> str:
    """Return the title of a chart, with the model whose runs it shows."""
    return title if options.config == RANDOM else f"{title}, {Path(options.config).name}"


def machine_of(options: argparse.Namespace) -> dict[str, Scalar]:
    """Return what the figures depend on."""
    machine: dict[str, Scalar] = {**describe_machine(), "numpy": np.__version__}
    if options.config == RANDOM:
        return machine
    import torch
    from _models import describe_device

    return {**machine, **describe_device(torch.device(options.device))}
