"""The training loop of the reference model."""

from __future__ import annotations

import copy
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from difftrace.models.llada import Block, LLaDAModel
from difftrace.models.reference.objective import diffusion_loss, draw_batch
from difftrace.models.reference.recipe import Recipe
from difftrace.models.reference.vocabulary import build_tokenizer, write_tokenizer


def train(recipe: Recipe, steps: int, log: int = 0) -> LLaDAModel:
    """Run the first `steps` steps of `recipe` and return the averaged model, in fp32 on the CPU.

    Sets torch's threads and deterministic algorithms, which a training process of its own may keep.
    """
    torch.set_num_threads(recipe.threads)
    torch.set_deterministic_debug_mode("error")
    rng = np.random.default_rng(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    tokenizer = build_tokenizer()
    model = LLaDAModel(recipe.config())
    _initialise(model, generator)
    averaged = copy.deepcopy(model)
    optimiser = torch.optim.AdamW(model.parameters(), betas=recipe.betas, weight_decay=recipe.weight_decay)
    lengths, shares = list(recipe.lengths), list(recipe.lengths.values())
    started = time.monotonic()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = _learning_rate(recipe, step)
        length = int(rng.choice(lengths, p=shares))
        batch = draw_batch(rng, tokenizer, recipe.batch_size, length, model.config.eos_token_id)
        loss = diffusion_loss(model, batch, generator)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_norm)
        optimiser.step()
        _average(averaged, model, min(recipe.average_decay, (step + 1) / (step + 10)))
        if log and (step + 1) % log == 0:
            print(f"step {step + 1:5} loss {loss.item():.4f} {time.monotonic() - started:.0f}s", flush=True)
    return averaged.requires_grad_(False)


def write_model(model: LLaDAModel, folder: Path) -> None:
    """Write config, weights and tokenizer as a checkpoint in the published layout."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(model.config.to_json(), indent=1, sort_keys=True)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    weights = {name: tensor.contiguous() for name, tensor in sorted(model.state_dict().items())}
    save_file(weights, folder / "model.safetensors")
    (folder / "model.safetensors").chmod(0o644)  # safetensors leaves it readable by its owner alone
    write_tokenizer(folder / "tokenizer.json")


def _initialise(model: LLaDAModel, generator: torch.Generator) -> None:
    """Normal weights, those of the projections back into the residual stream scaled down by depth."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.04, generator=generator)
    depth = math.sqrt(2 * model.config.n_layers)
    for block in model.modules():
        if isinstance(block, Block):
            block.attn_out.weight.data.div_(depth)
            block.ff_out.weight.data.div_(depth)


def _learning_rate(recipe: Recipe, step: int) -> float:
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


@torch.no_grad()
def _average(averaged: LLaDAModel, model: LLaDAModel, decay: float) -> None:
    for kept, current in zip(averaged.parameters(), model.parameters(), strict=True):
        kept.lerp_(current, 1 - decay)
