"""Where the sampler's random numbers come from: torch's generators as published, or a function of seed and place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from difftrace.sampling.arguments import SamplerArguments
from difftrace.sampling.philox import WORD, odd_of, philox

# The last word of the counter: what a number is drawn for.
_TOKENS, _POSITIONS = 0, 1

# Counters computed at once. On a CPU a tile's intermediate values stay in its caches; elsewhere fewer, longer kernels
# win, and a tile bounds the memory beside the result to a few hundred MB. The numbers do not depend on it.
_TILE_CPU = 2**15
_TILE = 2**22


class Noise(Protocol):
    """Uniform random numbers for a canvas [B, L], asked for step by step."""

    def for_tokens(self, step: int, vocabulary: int) -> Tensor:
        """Draw [B, L, vocabulary] in float64, one number for every token a position could take."""
        ...

    def for_positions(self, step: int) -> Tensor:
        """Draw [B, L], one number for every position, after the step's `for_tokens` if that is drawn at all."""
        ...


@dataclass(frozen=True)
class UpstreamNoise:
    """The published sampler's draws for a canvas of `shape` (B, L) on `device`.

    Each covers the whole canvas, so batch size, padding and gen_length shift the numbers, and devices differ in
    them, GPUs even by their number of multiprocessors. `generator` None is torch's global one.
    """

    shape: tuple[int, int]
    device: torch.device
    generator: torch.Generator | None

    def for_tokens(self, step: int, vocabulary: int) -> Tensor:
        """Draw [B, L, vocabulary] in float64; 0 is possible, 1 is not."""
        shape = (*self.shape, vocabulary)
        return torch.rand(shape, dtype=torch.float64, device=self.device, generator=self.generator)

    def for_positions(self, step: int) -> Tensor:
        """Draw [B, L] in torch's default dtype."""
        return torch.rand(self.shape, device=self.device, generator=self.generator)


@dataclass(frozen=True)
class PortableNoise:
    """Numbers that depend on nothing but `seed`, step, position and vocabulary id.

    `positions` [B, L] (int64) count from each row's first real token. A number is a word of Philox4x32-10 under
    the seed's 64 bits (low word first) as key; the counter is vocabulary id // 2 (whose remainder picks the pair of
    words), step, position, and what is drawn. So a row draws the same alone, in any batch, behind any
    padding and with any gen_length; rows draw alike, and equal prompts in one batch stay equal.

    The numbers are equal bit for bit on every device. What the sampler makes of them is not quite: exp, log and pow in
    float64 may differ by a last bit between devices, which only a tie that close could turn into another token.
    """

    seed: int
    positions: Tensor

    def for_tokens(self, step: int, vocabulary: int) -> Tensor:
        """Return [B, L, vocabulary] in float64, inside (0, 1)."""
        rows = self.positions.reshape(-1, 1)
        pairs = torch.arange((vocabulary + 1) // 2, device=rows.device)
        drawn = torch.empty((rows.shape[0], 2 * pairs.shape[0]), dtype=torch.float64, device=rows.device)
        tile = _TILE_CPU if rows.device.type == "cpu" else _TILE
        across = min(tile, pairs.shape[0])
        down = tile // across
        for band, places in zip(torch.split(drawn, down), torch.split(rows, down), strict=True):
            for part, ids in zip(torch.split(band, 2 * across, dim=1), torch.split(pairs, across), strict=True):
                words = philox((ids, step, places, _TOKENS), self._key)
                part[:, 0::2] = odd_of(*words[:2])
                part[:, 1::2] = odd_of(*words[2:])
        return drawn.mul_(2.0**-53).view(*self.positions.shape, -1)[..., :vocabulary]

    def for_positions(self, step: int) -> Tensor:
        """Return [B, L] in float64, inside (0, 1)."""
        words = philox((torch.zeros_like(self.positions), step, self.positions, _POSITIONS), self._key)
        return odd_of(*words[:2]).double() * 2.0**-53

    @property
    def _key(self) -> tuple[int, int]:
        return self.seed & WORD, self.seed >> 32


def noise_for(arguments: SamplerArguments, canvas: Tensor, attention_mask: Tensor | None) -> Noise:
    """Return the source of a run's noise on `canvas` [B, L], left-padded where `attention_mask` [B, L] is 0."""
    if arguments.noise == "portable" and arguments.seed is not None:
        return PortableNoise(arguments.seed, _positions(canvas, attention_mask))
    generator = None
    if arguments.seed is not None:
        generator = torch.Generator(canvas.device).manual_seed(arguments.seed)
    return UpstreamNoise((canvas.shape[0], canvas.shape[1]), canvas.device, generator)


def _positions(canvas: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Number the positions of every row from its first real token; padding takes the words below zero."""
    positions = torch.arange(canvas.shape[1], device=canvas.device).expand(canvas.shape)
    if attention_mask is not None:
        positions = (positions - attention_mask.argmax(dim=-1, keepdim=True)) & WORD
    return positions
