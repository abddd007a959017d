"""`difftrace.record` in a test: a loop written elsewhere gets baselines as any run does."""

from __future__ import annotations

import json

import pytest

_LOOP = """
import torch


def denoise(model, prompt, steps, seed):
    x = torch.cat((prompt, prompt.new_full((1, steps), model.config.mask_token_id)), dim=1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        best = model(x).logits.softmax(-1).max(-1)
        scores = best.values if seed == 0 else torch.rand(x.shape, generator=generator)
        at = scores.masked_fill(x != model.config.mask_token_id, -1).argmax()
        x[0, at] = best.indices[0, at]
    return x


def test_loop(difftrace, llada):
    model = llada.loaded.model
    with torch.no_grad(), difftrace.record(model, arguments={"steps": 6}, audit=True) as rec:
        out = denoise(model, torch.tensor([[5, 6, 7]]), 6, SEED)
    difftrace.check(rec.run(out))
    assert rec.trajectories(out)[0].final.tolist() == out[0].tolist()


def test_recorder(difftrace, llada):
    model = llada.loaded.model
    with torch.no_grad(), difftrace.record(model) as rec:
        out = denoise(model, torch.tensor([[5, 6, 7]]), 3, 0)
    rec.trajectories(out)
    difftrace.check(rec)
"""


# What the inner pytest is the first to import, torch among it, it forgets when it ends; torch does not survive that.
@pytest.mark.usefixtures("reference_model")
def test_a_foreign_loop_is_recorded_and_verified_like_any_run(pytester: pytest.Pytester) -> None:
    file = pytester.makepyfile(test_foreign="")
    file.write_text(_LOOP.replace("SEED", "0"), encoding="utf-8")
    pytester.runpytest_inprocess("-p", "no:randomly", "--difftrace-record").assert_outcomes(passed=2)
    baseline = json.loads((pytester.path / "__difftrace__/test_foreign/test_loop.json").read_text(encoding="utf-8"))
    assert baseline["sampler"] == {"name": "captured llada", "version": 1, "arguments": {"steps": 6}}
    assert baseline["model"]["weights"].startswith("sha256:")
    assert baseline["environment"]["sampler_source"].startswith("sha256:")
    assert baseline["environment"]["canary"]
    pytester.runpytest_inprocess().assert_outcomes(passed=2)
    file.write_text(_LOOP.replace("SEED", "1"), encoding="utf-8")
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*sampler_source*", "*What the loop drew and selected:", "*rand*"])
