"""The quickstart's baselines hold on any CPU because none of their decisions is a close one."""

from pathlib import Path

import numpy as np
import pytest
import torch

import difftrace
from difftrace.sampling import generate

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
BASELINES = sorted(QUICKSTART.rglob("__difftrace__/*/*.json"))
LEAST_MARGIN = 1e-3


class Watched:
    """A model that keeps the logits of every forward pass."""

    def __init__(self, model):
        self.model, self.config, self.seen = model, model.config, []

    def __call__(self, input_ids, attention_mask=None):
        output = self.model(input_ids, attention_mask=attention_mask)
        self.seen.append(output.logits)
        return output


def rerun(baseline, loaded):
    """Run a baseline again; return its trajectories and the logits [B, L, V] of every step."""
    trajectories = [record.trajectory for record in baseline.sequences]
    arguments = dict(baseline.sampler.arguments)
    prompts = torch.from_numpy(np.stack([t.initial[: t.length - arguments["gen_length"]] for t in trajectories]))
    width = prompts.shape[1]
    mask = torch.tensor([[0] * t.padding + [1] * (width - t.padding) for t in trajectories])
    watched = Watched(loaded.model)
    generation = generate(watched, prompts, attention_mask=mask, **arguments)
    return generation.trajectories, watched.seen


def margins(trajectory, logits, block_end):
    """Yield, for every step, the token margin in logits and the boundary margin in confidence."""
    mask_id = 0
    for step, scored in enumerate(logits):
        canvas = torch.tensor(trajectory.canvas(step))
        candidates = (canvas == mask_id) & (torch.arange(len(canvas)) < block_end(step))
        chosen = torch.zeros_like(candidates)
        chosen[trajectory.positions[trajectory.steps == step].tolist()] = True
        best = scored[chosen].topk(2).values
        yield (best[:, 0] - best[:, 1]).min().item()
        confidence = torch.softmax(scored, -1).max(-1).values
        rejected = candidates & ~chosen
        if rejected.any():
            yield (confidence[chosen].min() - confidence[rejected].max()).item()


def test_the_quickstart_has_baselines():
    assert len(BASELINES) == 4


@pytest.mark.parametrize("path", BASELINES, ids=lambda path: path.stem)
def test_no_decision_of_the_quickstart_is_close(path, reference_model):
    baseline = difftrace.load(path)
    arguments = baseline.sampler.arguments
    trajectories, seen = rerun(baseline, reference_model)
    assert trajectories == [record.trajectory for record in baseline.sequences]
    steps_per_block = arguments["steps"] * arguments["block_length"] // arguments["gen_length"]

    for row, trajectory in enumerate(trajectories):
        prompt_length = trajectory.length - arguments["gen_length"]

        def block_end(step, prompt_length=prompt_length):
            return prompt_length + (step // steps_per_block + 1) * arguments["block_length"]

        least = min(margins(trajectory, [logits[row] for logits in seen], block_end))
        assert least >= LEAST_MARGIN
