"""The arguments of LLaDA's sampler, checked once and named as the published sampler names them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from operator import methodcaller
from typing import Any

from difftrace.core.baseline import SamplerIdentity
from difftrace.core.errors import SamplerError

NAME = "llada"
# Raised whenever equal arguments and logits would lead to other decisions than before.
BEHAVIOUR_VERSION = 1

# Test runners then show the caller's line, not ours, for errors that are the caller's to mend.
__tracebackhide__ = methodcaller("errisinstance", SamplerError)

REMASKING = ("low_confidence", "random")
TIE_BREAKS = ("stable", "upstream")
NOISES = ("portable", "upstream")

# What a torch generator takes as a seed.
_SEEDS = 2**64


@dataclass(frozen=True)
class SamplerArguments:
    """What a run of the sampler is told, beside the model and the prompt.

    `steps` forwards fill `gen_length` masks, block by block of `block_length`; each block gets
    `steps * block_length / gen_length` steps. Raises SamplerError where values contradict each other.
    """

    steps: int
    gen_length: int
    block_length: int
    temperature: float = 0.0
    cfg_scale: float = 0.0
    remasking: str = "low_confidence"
    logits_eos_inf: bool = False
    confidence_eos_eot_inf: bool = False
    tie_break: str = "stable"
    noise: str = "upstream"
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "gen_length", "block_length"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SamplerError(f"{name} must be a positive integer, not {value!r}")
        if self.gen_length % self.block_length:
            raise SamplerError(
                f"gen_length {self.gen_length} is no multiple of block_length {self.block_length}: "
                "the last block would be cut"
            )
        if self.steps % self.num_blocks:
            raise SamplerError(
                f"steps {self.steps} cannot be divided by the {self.num_blocks} blocks "
                f"(gen_length {self.gen_length} / block_length {self.block_length}): every block gets equally many"
            )
        for name in ("temperature", "cfg_scale"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise SamplerError(f"{name} must be a number, not {value!r}")
            if not (math.isfinite(value) and value >= 0):
                raise SamplerError(f"{name} must be finite and not negative, is {value!r}")
            # 0 and 0.0 run alike, so they must be recorded alike.
            object.__setattr__(self, name, float(value))
        if self.remasking not in REMASKING:
            raise SamplerError(f"remasking must be one of {', '.join(REMASKING)}, not {self.remasking!r}")
        if self.tie_break not in TIE_BREAKS:
            raise SamplerError(f"tie_break must be one of {', '.join(TIE_BREAKS)}, not {self.tie_break!r}")
        if self.noise not in NOISES:
            raise SamplerError(f"noise must be one of {', '.join(NOISES)}, not {self.noise!r}")
        if self.seed is not None and (
            isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < _SEEDS
        ):
            raise SamplerError(f"seed must be an integer of 0 to 2**64 - 1, or None, not {self.seed!r}")
        if self.noise == "portable" and self.seed is None:
            raise SamplerError("noise='portable' is computed from the seed: give seed= an integer")

    @property
    def num_blocks(self) -> int:
        """Blocks of the generated part, denoised from left to right."""
        return self.gen_length // self.block_length

    @property
    def steps_per_block(self) -> int:
        """Forward passes spent on each block."""
        return self.steps // self.num_blocks

    @property
    def draws(self) -> bool:
        """Whether random numbers decide anything."""
        return self.temperature > 0 or self.remasking == "random"

    def quotas(self) -> tuple[int, ...]:
        """How many positions each step of a block commits, in every block alike.

        The published sampler counts the masks of a block when it gets to it. Until then nothing to the right
        of the current block can be committed, so that count is always `block_length`: the schedule is known
        before the run and no count has to come back from the device. Early steps take the remainder.
        """
        base, rest = divmod(self.block_length, self.steps_per_block)
        return tuple(base + (step < rest) for step in range(self.steps_per_block))

    def check_fits(self, prompt_length: int, config: object) -> None:
        """Refuse a canvas that is longer than a model's `config.max_sequence_length`, where it has one.

        Raises:
            SamplerError: the model has no positions for it.
        """
        most = getattr(config, "max_sequence_length", None)
        length = prompt_length + self.gen_length
        if isinstance(most, int) and length > most:
            raise SamplerError(
                f"{prompt_length} prompt tokens + gen_length {self.gen_length} = {length} positions, but the model's "
                f"max_sequence_length is {most}: shorten the prompt or lower gen_length"
            )

    def as_dict(self) -> dict[str, Any]:
        """The arguments by name, as `generate` takes them."""
        return asdict(self)

    def identity(self) -> SamplerIdentity:
        """The sampler as a baseline names it."""
        return SamplerIdentity(NAME, BEHAVIOUR_VERSION, self.as_dict())
