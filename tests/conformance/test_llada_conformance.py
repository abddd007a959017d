"""The published modelling file and sampler, replayed: same numbers, same decisions at every forward."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from difftrace.models import LoadedModel
from difftrace.sampling import generate

_DATA = json.loads((Path(__file__).parent / "llada" / "cases.json").read_text(encoding="utf-8"))


def _tensor(values: Any) -> torch.Tensor | None:
    return None if values is None else torch.tensor(values)


@pytest.mark.parametrize("index", range(len(_DATA["logits"])))
def test_logits_are_those_of_the_published_model(conformance_model: LoadedModel, index: int) -> None:
    entry = _DATA["logits"][index]
    with torch.no_grad():
        logits = conformance_model.model(_tensor(entry["input_ids"]), _tensor(entry["attention_mask"])).logits
    rows, positions = torch.tensor(entry["positions"]).T
    expected = torch.tensor(entry["logits"])
    assert expected.numel() > 0
    assert (logits[rows, positions] - expected).abs().max() < 1e-4


@pytest.mark.parametrize("tie_break", ["stable", "upstream"])
@pytest.mark.parametrize("case", _DATA["cases"], ids=lambda case: case["name"])
def test_every_forward_decides_what_the_published_sampler_decides(
    conformance_model: LoadedModel, case: dict[str, Any], tie_break: str
) -> None:
    names = ("steps", "gen_length", "block_length", "temperature", "cfg_scale", "remasking")
    flags = ("logits_eos_inf", "confidence_eos_eot_inf")
    generation = generate(
        conformance_model.model,
        torch.tensor(case["prompt"]),
        attention_mask=_tensor(case["attention_mask"]),
        **{name: case[name] for name in (*names, *flags)},
        seed=case["seed"],
        tie_break=tie_break,
    )
    assert generation.tokens.tolist() == case["output"]
    events: list[list[list[int]]] = [[] for _ in range(case["steps"])]
    for row, trajectory in enumerate(generation.trajectories):
        assert trajectory.num_steps == case["steps"] == len(case["events"])
        columns = zip(trajectory.steps.tolist(), trajectory.positions.tolist(), trajectory.tokens.tolist(), strict=True)
        for step, position, token in columns:
            events[step].append([row, position, token])
    assert events == [sorted(forward) for forward in case["events"]]


def test_the_cases_cover_what_they_are_for() -> None:
    cases = _DATA["cases"]
    assert len(cases) == 14
    for name in ("temperature", "cfg_scale", "remasking", "logits_eos_inf", "confidence_eos_eot_inf"):
        assert len({case[name] for case in cases}) == 2, name
    assert any(case["mask_id"] in row for case in cases for row in case["prompt"])
    assert any(0 in row for case in cases for row in case["attention_mask"] or [])
