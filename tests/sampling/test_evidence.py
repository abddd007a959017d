"""The evidence of a run is what a slow and plain reading of each of its steps says."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from difftrace.core.evidence import PROJECTIONS, REJECTED, Evidence
from difftrace.models import LoadedModel
from difftrace.sampling import SamplerArguments, generate
from difftrace.sampling.decision import confidence_of, guide, gumbel
from difftrace.sampling.llada import Generation
from difftrace.sampling.noise import noise_for
from difftrace.sampling.tables import position_keys, position_signs, word_keys, word_signs

CPU = torch.device("cpu")
PROMPTS, ATTENTION = torch.tensor([[300, 300, 5, 310], [1, 2, 310, 4], [7, 8, 9, 11]]), torch.ones(3, 4).long()
ATTENTION[0, :2] = 0
SHAPE: dict[str, Any] = {"steps": 6, "gen_length": 16, "block_length": 8, "seed": 3}

SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "one step a token": {"steps": 16},
    "everything in one step": {"steps": 1, "block_length": 16},
    "more steps than tokens": {"steps": 20},
    "upstream ties": {"tie_break": "upstream"},
    "upstream noise": {"temperature": 0.7},
    "portable noise": {"temperature": 1.3, "noise": "portable"},
    "guidance": {"cfg_scale": 1.5},
    "random": {"remasking": "random"},
    "random, portable": {"remasking": "random", "noise": "portable", "temperature": 0.4},
    "EOS forbidden": {"logits_eos_inf": True},
    "EOS last": {"confidence_eos_eot_inf": True},
    "all at once": {"logits_eos_inf": True, "confidence_eos_eot_inf": True, "cfg_scale": 0.5, "temperature": 0.7},
    "all at random": {"remasking": "random", "cfg_scale": 0.5, "temperature": 0.7, "steps": 4},
}


class Watched:
    """A model that keeps what it returned."""

    def __init__(self, model: Any) -> None:
        self._model, self.config, self.logits = model, model.config, []

    def __call__(self, ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        output = self._model(ids, attention_mask=attention_mask)
        self.logits.append(output.logits.clone())
        return output


def _coarse(ids: Tensor, forward: int) -> Tensor:
    """Few distinct logits, so that positions tie and tokens too."""
    places, tokens = torch.arange(ids.shape[1]).view(-1, 1), torch.arange(10)
    return ((ids.unsqueeze(-1) * 3 + places * 5 + tokens * 7 + forward) % 4).float()


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.parametrize("model", ["float32", "bfloat16", "coarse"])
def test_evidence_is_what_each_step_shows(
    settings: dict[str, Any], model: str, conformance_model: LoadedModel, scripted: Callable[..., Any]
) -> None:
    arguments = SamplerArguments(**{**SHAPE, **settings})
    prompts = PROMPTS % 10 if model == "coarse" else PROMPTS
    watched = Watched(scripted(_coarse) if model == "coarse" else _in(conformance_model, model))
    run = generate(watched, prompts, attention_mask=ATTENTION, **arguments.as_dict())
    assert len(run.evidence) == 3
    for row, evidence in enumerate(run.evidence):
        _assert_same(evidence, _plain(watched, run, row, arguments))


def test_the_coarse_model_shows_ties(scripted: Callable[..., Any]) -> None:
    run = generate(scripted(_coarse), PROMPTS % 10, **SHAPE)
    assert any(evidence.ties.any() for evidence in run.evidence)
    assert any((evidence.top_scores == evidence.runner_up_scores).any() for evidence in run.evidence)


def _in(loaded: LoadedModel, dtype: str) -> Any:
    if dtype == "float32":
        return loaded.model

    def cast(ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        logits = loaded.model(ids, attention_mask=attention_mask).logits.to(getattr(torch, dtype))
        return SimpleNamespace(logits=logits)

    cast.config = loaded.config  # type: ignore[attr-defined]
    return cast


def _plain(watched: Watched, run: Generation, row: int, arguments: SamplerArguments) -> dict[str, list[Any]]:
    """Work out one row's evidence, one step, position and number after the other."""
    trajectory = run.trajectories[row]
    config, end_of_prompt = watched.config, trajectory.length - arguments.gen_length
    canvases = torch.tensor(np.stack([t.initial for t in run.trajectories]), dtype=torch.long)
    masks = torch.stack([torch.arange(trajectory.length) >= t.padding for t in run.trajectories]).long()
    noise = noise_for(arguments, canvases, masks)
    unlikely = [config.eos_token_id] + ([config.eot_token_id] if getattr(config, "eot_token_id", None) else [])
    columns: dict[str, list[Any]] = {name: [] for name in Evidence.__dataclass_fields__}
    batch = len(run.trajectories)
    for step, raw in enumerate(watched.logits):
        block = step // arguments.steps_per_block
        scores = guide(raw, arguments.cfg_scale) if arguments.cfg_scale else raw.clone()
        if arguments.logits_eos_inf:
            scores[..., config.eos_token_id] = -torch.inf
        uniform = noise.for_tokens(step, scores.shape[-1]) if arguments.temperature else None
        noisy = gumbel(scores, arguments.temperature, uniform) if uniform is not None else scores
        credible = scores.clone()
        if arguments.confidence_eos_eot_inf:
            credible[..., unlikely] = -torch.inf
        tokens = noisy.argmax(-1)
        drawn = noise.for_positions(step) if arguments.remasking == "random" else None
        confidences = (confidence_of(credible, tokens) if drawn is None else drawn)[row]
        canvas = trajectory.canvas(step)
        end = end_of_prompt + (block + 1) * arguments.block_length
        candidates = [position for position in range(end) if canvas[position] == config.mask_token_id]
        committed = trajectory.positions[trajectory.steps == step].tolist()
        for position in committed:
            best = int(noisy[row, position].argmax())
            others = [token for token in range(scores.shape[-1]) if token != best]
            second = max(others, key=lambda token: (noisy[row, position, token].item(), -token))
            columns["top_tokens"].append(best)
            columns["runner_up_tokens"].append(second)
            for name, token in (("top_scores", best), ("runner_up_scores", second)):
                score = scores[row, position, token].double()
                if uniform is not None:
                    score -= arguments.temperature * torch.log(-torch.log(uniform[row, position, token]))
                columns[name].append(score.item())
            columns["confidences"].append(_log(confidences[position]))
        rejected = [position for position in candidates if position not in committed]
        rejected.sort(key=lambda position: (-confidences[position].item(), position))
        worst = min((confidences[position].item() for position in committed), default=None)
        columns["ties"].append(sum(confidences[position].item() == worst for position in rejected))
        best_rejected = rejected[:REJECTED]
        missing = REJECTED - len(best_rejected)
        columns["candidates"].append(len(candidates))
        columns["rejected_positions"].append(best_rejected + [-1] * missing)
        columns["rejected_tokens"].append(tokens[row, best_rejected].tolist() + [-1] * missing)
        columns["rejected_confidences"].append([_log(confidences[p]) for p in best_rejected] + [np.nan] * missing)
        parts = [raw[row + part * batch] for part in range(2 if arguments.cfg_scale else 1)]
        at = [position - trajectory.padding for position in candidates]
        columns["non_finite"].append(sum(int((~part[candidates].isfinite()).sum()) for part in parts))
        columns["logits_digests"].append(
            [sum(_hash(part[candidates], at, which, lane) for which, part in enumerate(parts)) for lane in (0, 1)]
        )
        columns["sketches"].append(sum(_sketch(part[candidates], at, which) for which, part in enumerate(parts)))
        columns["sketched"].append(len(candidates) * raw.shape[-1] * len(parts))
        digest = 0
        if uniform is not None:
            digest += _hash(uniform[row, candidates], at, 2, 0)
        if drawn is not None:
            digest += _hash(drawn[row, candidates].unsqueeze(-1), at, 3, 0)
        columns["noise_digests"].append(digest)
    return columns


def _log(confidence: Tensor) -> float:
    return float(confidence.double().log()) if confidence > 0 else -np.inf


def _hash(values: Tensor, at: list[int], part: int, lane: int) -> int:
    """Sum keys times words, row by row."""
    words = values.contiguous().view(torch.int16 if values.element_size() == 2 else torch.int32).numpy()
    keys = word_keys(words.shape[1], CPU)[lane].numpy().view(np.uint64)
    of_positions = position_keys(64, part, CPU)[:, lane].tolist()
    rows = words.astype(np.uint64)
    return sum(of_positions[position] * int((keys * row).sum()) for position, row in zip(at, rows, strict=True))


def _sketch(values: Tensor, at: list[int], part: int) -> npt.NDArray[np.float64]:
    fixed = (values.double() * 2**20).round().long()
    signs = word_signs(values.shape[1], torch.int64, CPU)
    of_positions = position_signs(64, part, CPU)
    total = torch.zeros(PROJECTIONS, dtype=torch.int64)
    for position, row in zip(at, fixed, strict=True):
        total += of_positions[position] * (row.unsqueeze(-1) * signs).sum(0)
    return total.numpy() / 2**20


def _assert_same(evidence: Evidence, plain: dict[str, list[Any]]) -> None:
    for name, expected in plain.items():
        found = getattr(evidence, name)
        if name in ("logits_digests", "noise_digests"):
            assert (found.view(np.uint64) == np.array(expected, dtype=object) % 2**64).all(), name
        elif name in ("top_scores", "runner_up_scores", "confidences", "rejected_confidences"):
            assert found.dtype == np.float32, name
            np.testing.assert_allclose(found, np.array(expected).reshape(found.shape), rtol=1e-6, err_msg=name)
        elif name == "sketches":
            np.testing.assert_array_equal(found, np.array(expected).astype(np.float32))
        else:
            assert found.dtype == (np.int64 if name == "sketched" else np.int32), name
            assert found.tolist() == expected, name
