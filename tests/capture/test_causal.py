"""Causal models under transformers' generate: one position a step, whatever the cache does."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import difftrace
from difftrace.capture import Captured
from difftrace.core.comparison import compare_sequences
from difftrace.core.errors import CaptureError

_PAD = 0
_IDS = torch.tensor([[0, 0, 5, 9, 11], [3, 4, 5, 6, 8]])
_MASK = (_IDS != _PAD).long()


def _recorded(model: Any, seed: int = 0, **arguments: Any) -> tuple[Captured, Tensor, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        with difftrace.record(model) as rec:
            output = model.generate(_IDS, attention_mask=_MASK, **{"max_new_tokens": 8, **arguments})
    assert rec.engine == "causal"
    return rec.capture(output), output, rec.run(output)


@pytest.mark.parametrize(
    "arguments",
    [{"use_cache": False}, {"prefill_chunk_size": 2}, {"cache_implementation": "static"}],
    ids=["no cache", "prompt in pieces", "static cache"],
)
def test_how_the_cache_is_kept_changes_nothing(llama: Any, arguments: dict[str, Any]) -> None:
    usual, _, _ = _recorded(llama)
    found, output, _ = _recorded(llama, **arguments)
    assert found.trajectories == usual.trajectories
    assert [one.final.tolist() for one in found.trajectories] == output.tolist()
    assert found.verified
    assert found.notes == ()


def test_a_step_commits_the_position_behind_the_text(llama: Any) -> None:
    captured, output, _ = _recorded(llama)
    row = captured.trajectories[0]
    assert row.steps.tolist() == list(range(8))
    assert row.positions.tolist() == list(range(5, 13))
    assert row.tokens.tolist() == output[0, 5:].tolist()
    assert (row.padding, row.prompt.tolist(), captured.prompt_end) == (2, [5, 9, 11], 5)


def test_rows_that_have_ended_are_filled_up_and_the_rest_keeps_its_evidence(llama: Any) -> None:
    plain, _, _ = _recorded(llama)
    end = int(plain.trajectories[0].tokens[2])
    captured, output, _ = _recorded(llama, eos_token_id=end)
    assert output[0, 8:].tolist() == [_PAD] * (output.shape[1] - 8)
    assert captured.trajectories[0].tokens.tolist() == output[0, 5:].tolist()
    assert captured.evidences is not None
    margins = captured.evidences[0].top_scores - captured.evidences[0].runner_up_scores
    assert np.isfinite(margins[:3]).all()
    assert np.isnan(margins[3:]).all()
    assert np.isfinite(captured.evidences[1].top_scores).all()


def test_a_greedy_run_knows_how_close_each_choice_was(llama: Any) -> None:
    captured, output, _ = _recorded(llama)
    assert captured.evidences is not None
    for row, evidence in enumerate(captured.evidences):
        for step in range(8):
            text = output[row : row + 1, : 5 + step]
            logits = llama(text, attention_mask=torch.cat((_MASK[row : row + 1], torch.ones(1, step).long()), 1)).logits
            best = logits[0, -1].topk(2)
            assert [evidence.top_tokens[step], evidence.runner_up_tokens[step]] == best.indices.tolist()
            scores = [evidence.top_scores[step], evidence.runner_up_scores[step]]
            assert np.allclose(scores, best.values.tolist(), atol=1e-4)
        assert evidence.candidates.tolist() == [1] * 8
        assert not evidence.noise_digests.any()


def test_sampling_is_told_by_its_random_state_and_its_scores_are_not_known(llama: Any) -> None:
    runs = [_recorded(llama, seed, do_sample=True)[2].to_baseline(None) for seed in (1, 1, 2)]
    assert _compared(runs[0], runs[1]) is None
    assert difftrace.classify(runs[0], runs[2]).divergence_class == "RNG"
    captured, _, _ = _recorded(llama, 1, do_sample=True)
    assert captured.evidences is not None
    assert np.isnan(captured.evidences[0].top_scores).all()


def test_other_weights_diverge_at_a_step_and_the_logits_are_known_to_differ(llama: Any) -> None:
    before = _recorded(llama)[2].to_baseline(None)
    weight = llama.lm_head.weight
    with torch.no_grad():
        kept = weight.clone()
        weight.mul_(1 + 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)))
        try:
            after = _recorded(llama)[2].to_baseline(None)
        finally:
            weight.copy_(kept)
    found = _compared(before, after)
    assert found is not None
    assert found.step is not None
    assert difftrace.classify(before, after).divergence_class == "NUMERIC"


def test_guidance_by_a_second_call_is_no_step(llama: Any) -> None:
    captured, output, _ = _recorded(llama, guidance_scale=2.0)
    assert captured.trajectories[0].num_steps == 8
    assert captured.trajectories[0].final.tolist() == output[0].tolist()


def test_what_goes_back_or_changes_rows_is_refused_by_name(llama: Any) -> None:
    for arguments, name in (({"num_beams": 2}, "beam search"), ({"prompt_lookup_num_tokens": 2}, "assisted decoding")):
        ids = _IDS[1:]
        with pytest.raises(CaptureError, match=name), difftrace.record(llama):
            llama.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, **arguments)
    assert "forward" not in vars(llama)


def test_several_samples_of_a_prompt_are_rows(llama: Any) -> None:
    captured, output, _ = _recorded(llama, do_sample=True, num_return_sequences=2)
    assert [one.final.tolist() for one in captured.trajectories] == output.tolist()
    assert len(output) == 4


def test_the_sampler_is_named_and_its_source_is_a_suspect(llama: Any) -> None:
    _, _, run = _recorded(llama)
    assert run.sampler.name == "captured causal"
    generation = Path(sys.modules["transformers.generation.utils"].__file__ or "")
    assert run.environment["sampler_source"] == f"sha256:{hashlib.sha256(generation.read_bytes()).hexdigest()}"


def _compared(golden: Any, observed: Any) -> Any:
    """Return the first difference of two baselines' trajectories."""
    return compare_sequences(*([one.trajectory for one in baseline.sequences] for baseline in (golden, observed)))
