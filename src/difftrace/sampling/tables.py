"""Fixed pseudo-random keys and signs, numbered by vocabulary id or position: the same on every device, for ever.

Computed by Philox4x32-10 under one key, so that entry i of a table depends on nothing but i and what the table is for.
Recorded digests and sketches depend on every one of them: changing anything here makes old evidence incomparable.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from difftrace.core.evidence import DIGEST_LANES, PROJECTIONS
from difftrace.sampling.philox import WORD, philox

# What a table is for: the second word of the counter.
_WORD_KEYS: Final = 0
_WORD_SIGNS: Final = 1
_POSITION_KEYS: Final = 2
_POSITION_SIGNS: Final = 3

# What the numbers at a position are: each has position keys and signs of its own (the third word of the counter).
CONDITIONAL: Final = 0
UNCONDITIONAL: Final = 1
TOKEN_NOISE: Final = 2
POSITION_NOISE: Final = 3

_KEY: Final = (0x64696666, 0x74726163)  # "difftrac"


@lru_cache(maxsize=8)
def word_keys(count: int, device: torch.device) -> Tensor:
    """Return keys of all 64 bits for the words of a row, int64 [DIGEST_LANES, count]."""
    return _keys(count, _WORD_KEYS, 0, device)


@lru_cache(maxsize=8)
def word_signs(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return +1 or -1 for every value of a row and projection, `dtype` [count, PROJECTIONS]."""
    return _signs(count, _WORD_SIGNS, 0, device).to(dtype)


@lru_cache(maxsize=32)
def position_keys(length: int, part: int, device: torch.device) -> Tensor:
    """Return odd keys for positions 0 to length - 1, int64 [length, DIGEST_LANES]. Odd, so that none loses bits."""
    return (_keys(length, _POSITION_KEYS, part, device) | 1).T.contiguous()


@lru_cache(maxsize=32)
def position_signs(length: int, part: int, device: torch.device) -> Tensor:
    """Return +1 or -1 for every position and projection, int64 [length, PROJECTIONS]."""
    return _signs(length, _POSITION_SIGNS, part, device)


def _keys(count: int, purpose: int, part: int, device: torch.device) -> Tensor:
    words = _words(count, purpose, part, device)
    return torch.stack([(words[2 * lane] << 32) | words[2 * lane + 1] for lane in range(DIGEST_LANES)])


def _signs(count: int, purpose: int, part: int, device: torch.device) -> Tensor:
    bits = torch.arange(PROJECTIONS, device=device)
    return 1 - 2 * ((_words(count, purpose, part, device)[0].unsqueeze(-1) >> bits) & 1)


def _words(count: int, purpose: int, part: int, device: torch.device) -> tuple[Tensor, ...]:
    numbers = torch.arange(count, device=device)
    return philox((numbers & WORD, purpose, torch.full_like(numbers, part), 0), _KEY)
