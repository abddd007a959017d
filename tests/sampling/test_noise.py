"""Portable noise depends on seed, step, position and vocabulary id, on nothing else, and is random in each of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from difftrace.core.errors import SamplerError
from difftrace.core.trajectory import Trajectory
from difftrace.models import LoadedModel
from difftrace.sampling import SamplerArguments, generate
from difftrace.sampling.decision import gumbel
from difftrace.sampling.noise import PortableNoise, noise_for
from difftrace.sampling.philox import philox

VOCABULARY = 10
SEEDS = [0, 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]


def _portable(seed: int = 0, length: int = 6, mask: Tensor | None = None) -> PortableNoise:
    arguments = SamplerArguments(steps=4, gen_length=4, block_length=4, noise="portable", seed=seed)
    canvas = torch.zeros((1 if mask is None else mask.shape[0], length), dtype=torch.long)
    noise = noise_for(arguments, canvas, mask)
    assert isinstance(noise, PortableNoise)
    return noise


def _flat(ids: Tensor, forward: int) -> Tensor:
    """Logits that leave every decision to the noise."""
    return torch.zeros(*ids.shape, VOCABULARY)


def _decisions(trajectory: Trajectory) -> dict[tuple[int, int], int]:
    """Map (step, position in the unpadded row) to the token committed there."""
    positions = trajectory.positions - trajectory.padding
    columns = zip(trajectory.steps.tolist(), positions.tolist(), trajectory.tokens.tolist(), strict=True)
    return {(step, position): token for step, position, token in columns}


class TestWhatItDependsOn:
    def test_a_number_is_made_of_the_documented_counter_and_key(self) -> None:
        seed, step, position = 0x0123456789ABCDEF, 5, 3
        drawn = _portable(seed).for_tokens(step, 9)[0, position]
        for token in range(9):
            counter = (torch.tensor(token // 2), step, torch.tensor(position), 0)
            words = [int(word) for word in philox(counter, (0x89ABCDEF, 0x01234567))]
            high, low = words[:2] if token % 2 == 0 else words[2:]
            assert float(drawn[token]) == (((high << 20) | (low >> 12)) + 0.5) / 2**52

    @pytest.mark.parametrize(
        ("seed", "digest"),
        [
            (0, "d8e3dbd92796039e69c1b8221dfe36c45c439ca3ef5af0acdc26ae99403a05b2"),
            (2**64 - 1, "5ffd6a64a949d93ee3872f11d0c9278b79270dfee11ec0dc358f1f855b092b75"),
        ],
    )
    def test_the_numbers_are_those_of_every_earlier_version(self, seed: int, digest: str) -> None:
        noise = _portable(seed, mask=torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]))
        sha = hashlib.sha256()
        for step in (0, 1, 255):
            for drawn in (noise.for_tokens(step, 321), noise.for_positions(step)):
                sha.update((drawn * 2.0**53).long().contiguous().numpy().astype("<i8").tobytes())
        assert sha.hexdigest() == digest

    def test_neither_batch_nor_padding_shifts_it(self) -> None:
        mask = torch.tensor([[0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]])
        batch = _portable(3, mask=mask)
        for row, padding in enumerate((3, 0, 1)):
            alone = _portable(3, length=6 - padding)
            assert torch.equal(batch.for_tokens(2, 11)[row, padding:], alone.for_tokens(2, 11)[0])
            assert torch.equal(batch.for_positions(2)[row, padding:], alone.for_positions(2)[0])

    def test_neither_a_longer_canvas_nor_a_larger_vocabulary_shifts_it(self) -> None:
        short, long = _portable(length=6), _portable(length=40)
        assert torch.equal(short.for_tokens(1, 11), long.for_tokens(1, 320)[:, :6, :11])
        assert torch.equal(short.for_positions(1), long.for_positions(1)[:, :6])

    @pytest.mark.parametrize("tile", [1, 7, 64])
    def test_how_it_is_cut_into_tiles_does_not_matter(self, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = _portable(9, length=13).for_tokens(4, 51)
        monkeypatch.setattr("difftrace.sampling.noise._TILE_CPU", tile)
        assert torch.equal(_portable(9, length=13).for_tokens(4, 51), whole)

    def test_seed_step_position_token_and_purpose_each_give_other_numbers(self) -> None:
        drawn = [_portable(seed, length=50).for_tokens(step, 41) for seed in SEEDS for step in range(4)]
        drawn += [_portable(seed, length=50).for_positions(step) for seed in SEEDS for step in range(4)]
        everything = torch.cat([numbers.flatten() for numbers in drawn])
        assert len(set(everything.tolist())) == everything.numel()

    def test_padding_draws_numbers_of_its_own(self) -> None:
        drawn = _portable(mask=torch.tensor([[0, 0, 1, 1, 1, 1]])).for_positions(0)
        assert len(set(drawn.flatten().tolist())) == 6

    def test_no_generator_of_torch_is_touched(self) -> None:
        before = torch.get_rng_state()
        _portable().for_tokens(0, 5)
        _portable().for_positions(0)
        assert torch.equal(torch.get_rng_state(), before)


def _chi_square(cells: Tensor, count: int) -> float:
    """Return the statistic of `cells` against the uniform distribution on `count` values."""
    observed = torch.bincount(cells.flatten(), minlength=count).double()
    expected = cells.numel() / count
    return float(((observed - expected) ** 2 / expected).sum())


# With 255 degrees of freedom the statistic has mean 255 and deviation 22.6: five deviations either way. Too even
# is as suspicious as too uneven.
TOO_EVEN, TOO_UNEVEN = 142, 368


@pytest.fixture(scope="module")
def drawn() -> Tensor:
    """Numbers by step, position and vocabulary id [8, 64, 1024]."""
    return torch.cat([_portable(20, length=64).for_tokens(step, 1024) for step in range(8)])


class TestQuality:
    @pytest.mark.parametrize("bit", [0, 8, 20, 44])
    def test_every_part_of_a_number_is_uniform(self, drawn: Tensor, bit: int) -> None:
        # Eight bits from bit `bit` on, counted from the most significant one.
        cells = (drawn * 2.0 ** (bit + 8)).floor().remainder(256).long()
        assert TOO_EVEN < _chi_square(cells, 256) < TOO_UNEVEN

    @pytest.mark.parametrize("distance", [1, 2, 3])
    @pytest.mark.parametrize("along", ["step", "position", "token"])
    def test_neighbours_are_independent(self, drawn: Tensor, along: str, distance: int) -> None:
        axis = ("step", "position", "token").index(along)
        one = drawn.narrow(axis, 0, drawn.shape[axis] - distance)
        other = drawn.narrow(axis, distance, drawn.shape[axis] - distance)
        cells = (one * 16).long() * 16 + (other * 16).long()
        assert TOO_EVEN < _chi_square(cells, 256) < TOO_UNEVEN
        correlation = float(((one - 0.5) * (other - 0.5)).mean()) * 12
        assert abs(correlation) < 5 / one.numel() ** 0.5

    @pytest.mark.parametrize("seeds", [(0, 1), (1, 2**32), (0, 2**63), (2**64 - 2, 2**64 - 1)])
    def test_seeds_close_to_each_other_are_independent(self, seeds: tuple[int, int]) -> None:
        one, other = (_portable(seed, length=128).for_tokens(0, 1024) for seed in seeds)
        assert TOO_EVEN < _chi_square((one * 16).long() * 16 + (other * 16).long(), 256) < TOO_UNEVEN

    def test_confidences_are_uniform_and_independent_of_the_tokens_noise(self) -> None:
        noise = _portable(5, length=2048)
        confidences = torch.cat([noise.for_positions(step) for step in range(64)])
        assert TOO_EVEN < _chi_square((confidences * 256).long(), 256) < TOO_UNEVEN
        tokens = torch.cat([noise.for_tokens(step, 1)[..., 0] for step in range(64)])
        assert TOO_EVEN < _chi_square((confidences * 16).long() * 16 + (tokens * 16).long(), 256) < TOO_UNEVEN

    def test_it_samples_from_the_softmax_of_the_logits(self) -> None:
        probabilities = torch.tensor([0.6, 0.3, 0.1])
        uniform = _portable(length=20_000).for_tokens(0, 3)
        drawn = gumbel(probabilities.log().expand(1, 20_000, 3), 1.0, uniform).argmax(-1)
        assert torch.bincount(drawn[0]) / 20_000 == pytest.approx(probabilities, abs=0.02)


class TestRuns:
    ARGUMENTS: dict[str, Any] = {  # noqa: RUF012
        "steps": 8, "gen_length": 16, "block_length": 8, "temperature": 0.7, "noise": "portable", "seed": 3,
    }  # fmt: skip

    @pytest.mark.parametrize("remasking", ["low_confidence", "random"])
    @pytest.mark.parametrize("cfg_scale", [0.0, 1.5])
    def test_a_row_decides_in_a_batch_as_it_does_alone(
        self, conformance_model: LoadedModel, remasking: str, cfg_scale: float
    ) -> None:
        prompt = torch.tensor([[5, 151, 163, 230], [1, 2, 3, 4], [7, 310, 9, 8]])
        arguments = {**self.ARGUMENTS, "remasking": remasking, "cfg_scale": cfg_scale}
        batch = generate(conformance_model.model, prompt, **arguments).trajectories
        assert batch == [generate(conformance_model.model, row[None], **arguments).trajectories[0] for row in prompt]

    @pytest.mark.parametrize("remasking", ["low_confidence", "random"])
    def test_a_padded_row_decides_as_it_does_alone_where_the_model_does_not_mind_padding(
        self, scripted: Callable[..., Any], remasking: str
    ) -> None:
        prompt, mask = torch.tensor([[8, 8, 1], [4, 5, 6]]), torch.tensor([[0, 0, 1], [1, 1, 1]])
        arguments = {**self.ARGUMENTS, "remasking": remasking}
        padded, full = generate(scripted(_flat), prompt, attention_mask=mask, **arguments).trajectories
        for row, trajectory in ((torch.tensor([[1]]), padded), (torch.tensor([[4, 5, 6]]), full)):
            alone = generate(scripted(_flat), row, **arguments).trajectories[0]
            assert _decisions(trajectory) == _decisions(alone)

    def test_every_step_of_every_block_takes_the_numbers_of_its_own(self, scripted: Callable[..., Any]) -> None:
        run = generate(scripted(_flat), torch.tensor([[1, 2]]), **{**self.ARGUMENTS, "remasking": "random"})
        noise = _portable(3, length=18)
        for (step, position), token in _decisions(run.trajectories[0]).items():
            # Where all logits are equal the token of the largest number wins.
            assert token == int(noise.for_tokens(step, VOCABULARY)[0, position].argmax())
            open_then = torch.from_numpy(run.trajectories[0].canvas(step) == 9)
            open_then[2 + 8 * (1 + step // 4) :] = False
            best = noise.for_positions(step)[0].masked_fill(~open_then, -1).topk(2).indices.tolist()
            assert position in best

    def test_neither_gen_length_nor_block_length_shifts_it(self, scripted: Callable[..., Any]) -> None:
        prompt, arguments = torch.tensor([[1, 2]]), {**self.ARGUMENTS, "remasking": "random"}
        short, long = (
            _decisions(generate(scripted(_flat), prompt, **{**arguments, **lengths}).trajectories[0])
            for lengths in ({"steps": 4, "gen_length": 8}, {"steps": 8, "gen_length": 16})
        )
        assert {place: token for place, token in long.items() if place[0] < 4} == short
        blockwise, at_once = (
            _decisions(generate(scripted(_flat), prompt, **{**arguments, "block_length": length}).trajectories[0])
            for length in (8, 16)
        )
        common = blockwise.keys() & at_once.keys()
        assert len(common) > 2
        assert all(blockwise[place] == at_once[place] for place in common)

    @pytest.mark.parametrize("temperature", [0.0, 0.7])
    def test_random_remasking_follows_the_seed_at_any_temperature(
        self, scripted: Callable[..., Any], temperature: float
    ) -> None:
        arguments = {**self.ARGUMENTS, "temperature": temperature, "remasking": "random"}
        runs = [
            generate(scripted(_flat), torch.tensor([[1, 2]]), **{**arguments, "seed": seed}).trajectories[0]
            for seed in (3, 3, *SEEDS)
        ]
        assert runs[0] == runs[1]
        assert len({run.digest for run in runs}) == 1 + len(SEEDS)

    def test_equal_prompts_of_a_batch_stay_equal(self, scripted: Callable[..., Any]) -> None:
        first, second = generate(scripted(_flat), torch.tensor([[1, 2], [1, 2]]), **self.ARGUMENTS).trajectories
        assert first == second

    def test_the_global_generator_has_no_part_in_it(self, scripted: Callable[..., Any]) -> None:
        before = torch.get_rng_state()
        generate(scripted(_flat), torch.tensor([[1, 2]]), **{**self.ARGUMENTS, "remasking": "random"})
        assert torch.equal(torch.get_rng_state(), before)

    def test_where_nothing_is_drawn_both_kinds_decide_alike(self, conformance_model: LoadedModel) -> None:
        runs = [
            generate(
                conformance_model.model,
                torch.tensor([[5, 151, 163]]),
                **{**self.ARGUMENTS, "temperature": 0.0, "noise": noise},
            ).trajectories
            for noise in ("portable", "upstream")
        ]
        assert runs[0] == runs[1]

    def test_without_a_seed_it_is_refused(self, constant_model: Any) -> None:
        with pytest.raises(SamplerError, match="noise='portable' is computed from the seed: give seed= an integer"):
            generate(constant_model, torch.tensor([[1, 2]]), **{**self.ARGUMENTS, "seed": None})
        assert constant_model.inputs == []
