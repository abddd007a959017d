"""The numbers of any step are those that a run which got there drew."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from difftrace.core.errors import RunError
from difftrace.sampling import SamplerArguments
from difftrace.sampling.noise import Noise, noise_for
from difftrace.sampling.replay import NoiseOfSteps, any_step_noise

CANVAS = torch.zeros((2, 5), dtype=torch.long)
MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
VOCABULARY = 7
STEPS = 6

Drawn = tuple[Tensor | None, Tensor | None]


def arguments(noise: str, temperature: float, remasking: str, seed: int | None = 3) -> SamplerArguments:
    return SamplerArguments(STEPS, 6, 6, temperature=temperature, remasking=remasking, noise=noise, seed=seed)


def draw(noise: Noise, step: int, given: SamplerArguments) -> Drawn:
    """What the sampler draws at a step."""
    tokens = noise.for_tokens(step, VOCABULARY) if given.temperature > 0 else None
    return tokens, noise.for_positions(step) if given.remasking == "random" else None


def equal(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other if one is None or other is None else one.equal(other)


@pytest.mark.parametrize("noise", ["portable", "upstream"])
@pytest.mark.parametrize(("temperature", "remasking"), [(0.7, "low_confidence"), (0.0, "random"), (0.7, "random")])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 0, 3, 3, 1, 4], [2]])
def test_steps_draw_alike_in_whatever_order_they_are_asked(
    noise: str, temperature: float, remasking: str, order: list[int]
) -> None:
    given = arguments(noise, temperature, remasking)
    in_turn = noise_for(given, CANVAS, MASK)
    run = [draw(in_turn, step, given) for step in range(STEPS)]
    replayed = any_step_noise(given, CANVAS, MASK, VOCABULARY)
    for step in order:
        for drawn, expected in zip(draw(replayed, step, given), run[step], strict=True):
            assert equal(drawn, expected)
    together = NoiseOfSteps(replayed, order)
    for column, drawn in enumerate(draw(together, 0, given)):
        expected_rows = [run[step][column] for step in order]
        assert equal(drawn, None if drawn is None else torch.cat([row for row in expected_rows if row is not None]))


def test_positions_can_be_asked_without_the_tokens_before_them() -> None:
    given = arguments("upstream", 0.7, "random")
    in_turn = noise_for(given, CANVAS, None)
    positions = [draw(in_turn, step, given)[1] for step in range(STEPS)]
    replayed = any_step_noise(given, CANVAS, None, VOCABULARY)
    assert all(equal(replayed.for_positions(step), positions[step]) for step in reversed(range(STEPS)))


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    any_step_noise(arguments("upstream", 0.7, "random"), CANVAS, None, VOCABULARY).for_tokens(4, VOCABULARY)
    assert torch.get_rng_state().equal(before)


def test_draws_from_the_global_generator_cannot_be_had_again() -> None:
    for temperature, remasking in ((0.7, "low_confidence"), (0.0, "random")):
        with pytest.raises(RunError, match="draws from torch's global generator"):
            any_step_noise(arguments("upstream", temperature, remasking, seed=None), CANVAS, None, VOCABULARY)
    any_step_noise(arguments("upstream", 0.0, "low_confidence", seed=None), CANVAS, None, VOCABULARY)
