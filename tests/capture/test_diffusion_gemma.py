"""DiffusionGemma under transformers' generate: random canvases, nearly all of which is rewritten at every step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import difftrace
from difftrace.capture import Captured
from difftrace.core.comparison import compare_sequences
from difftrace.core.errors import CaptureError
from difftrace.reports.failure import divergence_text

# As the fixture has them.
_BLOCK, _VOCABULARY = 16, 64
pytestmark = pytest.mark.usefixtures("no_compiler")

_IDS = torch.tensor([[5, 9, 11, 23, 42], [3, 4, 5, 6, 8]])


def _recorded(model: Any, seed: int, **arguments: Any) -> tuple[Captured, Any, Any]:
    given = {"max_new_tokens": 2 * _BLOCK, "max_denoising_steps": 6, **arguments}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        with difftrace.record(model) as rec:
            output = model.generate(_IDS, **given)
    assert rec.engine == "diffusion_gemma"
    return rec.capture(output), output, rec.run(output)


def test_the_canvas_is_all_blocks_and_ends_as_what_was_returned(gemma: Any) -> None:
    captured, output, _ = _recorded(gemma, 1)
    assert captured.verified
    assert captured.notes == ()
    for row, one in enumerate(captured.trajectories):
        assert one.prompt.tolist() == _IDS[row].tolist()
        assert one.final.tolist() == output.sequences[row, 5:].tolist()
        assert one.num_steps == 12
        # A block's positions only change in its own steps.
        assert (one.positions // _BLOCK == one.steps // 6).all()


def test_canvases_are_those_that_the_engine_gave_its_decoder(gemma: Any) -> None:
    own, seen = type(gemma).forward, []

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["decoder_input_ids"].clone())
        return own(self, *args, **kwargs)

    type(gemma).forward = forward
    try:
        captured, _, _ = _recorded(gemma, 1)
    finally:
        type(gemma).forward = own
    for step, canvas in enumerate(seen):
        start = _BLOCK * (step // 6)
        shown = [one.canvas(step)[start : start + _BLOCK].tolist() for one in captured.trajectories]
        assert shown == canvas.tolist()


def test_one_seed_gives_one_trajectory(gemma: Any) -> None:
    assert _recorded(gemma, 1)[0] == _recorded(gemma, 1)[0]


def test_another_seed_diverges_before_anything_else_and_fits_a_screen(gemma: Any) -> None:
    golden, observed = (_recorded(gemma, seed)[2].to_baseline(None) for seed in (1, 2))
    found = _compared(golden, observed)
    assert found is not None
    assert (found.kind, found.agreed_steps) == ("initial", 0)
    assert len(_report(golden, observed)) <= 40


def test_another_seed_on_a_given_first_canvas_diverges_at_its_first_step(gemma: Any) -> None:
    canvas = torch.arange(2 * _BLOCK).view(2, _BLOCK)
    given = {"max_new_tokens": _BLOCK, "decoder_input_ids": canvas}
    golden, observed = (_recorded(gemma, seed, **given)[2].to_baseline(None) for seed in (1, 2))
    found = _compared(golden, observed)
    assert found is not None
    assert found.step == 0
    assert len(_report(golden, observed)) <= 40


def _report(golden: Any, observed: Any) -> list[str]:
    where, advice = [f"line {index}" for index in range(4)], [f"advice {index}" for index in range(4)]
    found = _compared(golden, observed)
    text = divergence_text(golden, observed, found, subject="diverged", where=where, advice=advice)
    return text.splitlines()


def test_the_encoding_is_close_to_the_bound_of_its_events(gemma: Any) -> None:
    captured, _, _ = _recorded(gemma, 1, max_denoising_steps=12)
    for one in captured.trajectories:
        commits = np.bincount(one.steps, minlength=one.num_steps)
        places = sum(math.log2(math.comb(one.length, int(count))) for count in commits)
        bound = (one.num_events * math.log2(_VOCABULARY) + places) / 8
        assert len(one.to_bytes()) <= 1.15 * bound


def test_rows_that_end_early_are_padded(gemma: Any) -> None:
    plain = _recorded(gemma, 1)[1].sequences
    end = int(plain[0, 5 + 3])
    captured, output, _ = _recorded(gemma, 1, eos_token_id=end, pad_token_id=0)
    assert (output.sequences[0] == 0).any()
    for row, one in enumerate(captured.trajectories):
        assert one.final.tolist() == output.sequences[row, 5:].tolist()


def test_a_loop_that_encodes_the_prompt_at_every_call_has_one_block(gemma: Any) -> None:
    canvas = torch.arange(2 * _BLOCK).view(2, _BLOCK) % 60
    with difftrace.record(gemma) as rec, torch.no_grad():
        for _ in range(3):
            canvas = gemma(input_ids=_IDS, decoder_input_ids=canvas).logits.argmax(-1)
    captured = rec.capture(canvas)
    assert [one.length for one in captured.trajectories] == [_BLOCK] * 2
    assert [one.num_steps for one in captured.trajectories] == [3, 3]
    assert [one.prompt.tolist() for one in captured.trajectories] == _IDS.tolist()
    assert [one.final.tolist() for one in captured.trajectories] == canvas.tolist()


def test_a_cache_that_has_the_model_compiled_is_refused_and_nothing_is_left_behind(
    gemma: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    with pytest.raises(CaptureError, match="disable_compile=True"):
        _recorded(gemma, 1, cache_implementation="static")
    assert not {"forward", "_compiled_decoder_forward"} & vars(gemma).keys()
    assert "forward" not in vars(gemma.model.encoder)
    captured, output, _ = _recorded(gemma, 1, cache_implementation="static", disable_compile=True)
    assert captured.trajectories[0].final.tolist() == output.sequences[0, 5:].tolist()


def _compared(golden: Any, observed: Any) -> Any:
    """Return the first difference of two baselines' trajectories."""
    return compare_sequences(*([one.trajectory for one in baseline.sequences] for baseline in (golden, observed)))
