"""A loop that knows nothing of recording, seen through its calls of `model(x)` alone: the published events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import difftrace
from difftrace.models import LoadedModel

_DATA = json.loads((Path(__file__).parents[1] / "conformance" / "llada" / "cases.json").read_text(encoding="utf-8"))


@torch.no_grad()
def _denoise(
    model: Any,
    prompt: Tensor,
    attention_mask: Tensor | None,
    *,
    steps: int,
    gen_length: int,
    block_length: int,
    temperature: float,
    cfg_scale: float,
    remasking: str,
    logits_eos_inf: bool,
    confidence_eos_eot_inf: bool,
) -> Tensor:
    """Denoise as ML-GSAI/LLaDA's generate.py does: one canvas written in place, logits overwritten after use."""
    config, rows = model.config, range(prompt.shape[0])
    x = torch.full((prompt.shape[0], prompt.shape[1] + gen_length), config.mask_token_id)
    x[:, : prompt.shape[1]] = prompt
    if attention_mask is not None:
        attention_mask = torch.cat((attention_mask, attention_mask.new_ones((x.shape[0], gen_length))), dim=1)
    fixed = x != config.mask_token_id
    per_block = steps // (gen_length // block_length)
    for end in range(prompt.shape[1] + block_length, x.shape[1] + 1, block_length):
        masks = (x[:, end - block_length : end] == config.mask_token_id).sum(1)
        for step in range(per_block):
            if cfg_scale > 0:
                hidden = x.clone()
                hidden[fixed] = config.mask_token_id
                both = None if attention_mask is None else attention_mask.repeat(2, 1)
                logits, without = model(torch.cat((x, hidden)), attention_mask=both).logits.chunk(2)
                logits = without + (cfg_scale + 1) * (logits - without)
            else:
                logits = model(x, attention_mask=attention_mask).logits
            if logits_eos_inf:
                logits[..., config.eos_token_id] = -torch.inf
            noisy = logits
            if temperature > 0:
                noisy = logits.double().exp() / (-torch.rand_like(logits, dtype=torch.float64).log()) ** temperature
            tokens = noisy.argmax(-1)
            if confidence_eos_eot_inf:
                logits[..., [i for i in (config.eos_token_id, config.eot_token_id) if i is not None]] = -torch.inf
            if remasking == "random":
                confidence = torch.rand(tokens.shape)
            else:
                confidence = logits.softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
            confidence[x != config.mask_token_id] = -torch.inf
            confidence[:, end:] = -torch.inf
            for row in rows:
                quota = int(masks[row]) // per_block + (step < int(masks[row]) % per_block)
                chosen = confidence[row].topk(quota).indices
                x[row, chosen] = tokens[row, chosen]
    return x


def _run(model: Any, case: dict[str, Any], **changed: Any) -> Tensor:
    names = ("steps", "gen_length", "block_length", "temperature", "cfg_scale", "remasking")
    flags = ("logits_eos_inf", "confidence_eos_eot_inf")
    mask = None if case["attention_mask"] is None else torch.tensor(case["attention_mask"])
    torch.manual_seed(case["seed"])
    return _denoise(
        model, torch.tensor(case["prompt"]), mask, **{name: case[name] for name in (*names, *flags)} | changed
    )


def _events(trajectories: list[difftrace.Trajectory]) -> list[list[list[int]]]:
    events: list[list[list[int]]] = [[] for _ in range(trajectories[0].num_steps)]
    for row, one in enumerate(trajectories):
        for step, position, token in zip(one.steps.tolist(), one.positions.tolist(), one.tokens.tolist(), strict=True):
            events[step].append([row, position, token])
    return events


@pytest.mark.parametrize("engine", ["auto", "generic"])
@pytest.mark.parametrize("case", _DATA["cases"], ids=lambda case: case["name"])
def test_calls_of_the_model_alone_show_every_published_event(
    conformance_model: LoadedModel, case: dict[str, Any], engine: str
) -> None:
    with torch.random.fork_rng(), difftrace.record(conformance_model.model, engine=engine) as rec:
        out = _run(conformance_model.model, case)
    captured = rec.capture(out)
    assert out.tolist() == case["output"]
    assert rec.engine == ("llada" if engine == "auto" else "generic")
    assert _events(list(captured.trajectories)) == [sorted(forward) for forward in case["events"]]
    assert [one.final.tolist() for one in captured.trajectories] == case["output"]
    assert captured.verified
    masks = case["attention_mask"] or [[1] * len(row) for row in case["prompt"]]
    for one, prompt, mask in zip(captured.trajectories, case["prompt"], masks, strict=True):
        assert one.padding == mask.index(1)
        assert one.num_steps == case["steps"]
        assert one.prompt.tolist() == prompt[mask.index(1) :]


def test_steps_that_commit_nothing_count(conformance_model: LoadedModel) -> None:
    with torch.random.fork_rng(), difftrace.record(conformance_model.model) as rec:
        out = _run(conformance_model.model, _DATA["cases"][0], steps=20, gen_length=16, block_length=8)
    (first, *_) = rec.trajectories(out)
    assert first.num_steps == 20
    assert sorted({*range(20)} - {*first.steps.tolist()}) == [8, 9, 18, 19]
