"""Loops that know nothing of recording, for what capturing them costs: a plain one, and transformers' two."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from _models import build_loaded
from torch import Tensor

import difftrace

Keep = Literal["decisions", "evidence"]


@dataclass(frozen=True)
class Engine:
    """A loop that can run as it is or recorded.

    Attributes:
        model: what is recorded.
        loop: runs it and returns what the engine does.
    """

    model: Any
    loop: Callable[[], Any]

    def recorded(self, keep: Keep) -> difftrace.capture.Captured:
        """Run the loop and return its trajectories."""
        with difftrace.record(self.model, keep=keep) as rec:
            output = self.loop()
        return rec.capture(output)


def llada(options: argparse.Namespace) -> Engine:
    """Return the published loop in its plainest form: one block, greedy, the most confident mask first."""
    loaded = build_loaded(options)
    model, mask_id = loaded.model, loaded.config.mask_token_id
    prompt = _prompt(loaded.config.vocab_size, options)
    per_step = max(1, options.gen_length // options.steps)

    @torch.no_grad()
    def loop() -> Tensor:
        x = torch.cat((prompt, prompt.new_full((1, options.gen_length), mask_id)), dim=1)
        for _ in range(options.steps):
            logits = model(x).logits
            best = logits.argmax(-1)
            confidence = torch.softmax(logits, dim=-1).gather(-1, best.unsqueeze(-1)).squeeze(-1)
            confidence = confidence.masked_fill(x != mask_id, -torch.inf)
            chosen = confidence.topk(per_step).indices
            x = x.scatter(1, chosen, best.gather(1, chosen))
        return x

    return Engine(model, loop)


def causal(options: argparse.Namespace) -> Engine:
    """Return a Llama of four layers with random weights under `generate`, with its cache."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = _random(LlamaForCausalLM, config, options)
    prompt = _prompt(config.vocab_size, options)
    length = {"max_new_tokens": options.gen_length, "min_new_tokens": options.gen_length}
    return Engine(model, lambda: model.generate(prompt, do_sample=False, **length))


def diffusion_gemma(options: argparse.Namespace) -> Engine:
    """Return a DiffusionGemma of four layers with random weights under `generate`."""
    from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion, DiffusionGemmaTextConfig
    from transformers.models.gemma4.configuration_gemma4 import Gemma4VisionConfig

    text = DiffusionGemmaTextConfig(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        global_head_dim=32,
        num_experts=4,
        top_k_experts=2,
        moe_intermediate_size=64,
        layer_types=["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
    )
    vision = Gemma4VisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1
    )
    images = {"image_token_id": 509, "boi_token_id": 510, "eoi_token_id": 511}
    config = DiffusionGemmaConfig(text_config=text, vision_config=vision, canvas_length=options.block_length, **images)
    model = _random(DiffusionGemmaForBlockDiffusion, config, options)
    prompt = _prompt(500, options)
    blocks = -(-options.gen_length // options.block_length)

    def loop() -> Any:
        torch.manual_seed(0)
        steps = max(1, options.steps // blocks)
        return model.generate(prompt, max_new_tokens=options.gen_length, max_denoising_steps=steps)

    return Engine(model, loop)


ENGINES: Final[dict[str, Callable[[argparse.Namespace], Engine]]] = {
    "llada": llada,
    "diffusion-gemma": diffusion_gemma,
    "causal": causal,
}


def _random(kind: Any, config: Any, options: argparse.Namespace) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(config).to(options.device, getattr(torch, options.dtype)).eval().requires_grad_(False)


def _prompt(vocabulary: int, options: argparse.Namespace) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    # The lowest ids are often special.
    prompt = torch.randint(4, vocabulary, (1, options.prompt_length), generator=generator)
    return prompt.to(options.device)
