"""Random projections of a step's logits: how far two runs are apart, without keeping either's logits.

A sketch is s[j] = Σ_p Σ_v δ[j, p]·ε[j, v]·x[p, v] over the candidates p and the vocabulary v with fixed random signs δ
and ε. For the difference x of two runs' logits E[s[j]²] = Σ x², since the product signs of two places are
uncorrelated: so the mean over the projections estimates the sum of squared differences (Alon, Matias, Szegedy, "The
space complexity of approximating the frequency moments", STOC 1996). Signs that are products need L + V random numbers
for L·V places and a single matrix product; the price is variance, for one projection between 2 (spread
differences) and 8 (differences that are themselves a product) times (Σ x²)², where independent signs have 2. With 32
projections the root mean square so estimated is off by about 12 %, at worst 25 % (one standard deviation).

Computed in fixed point, so exactly: the same on every device, for any number of threads, in any batch. Logits count to
2^-20 and up to ±2^14; NaN and infinities count as 0.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from difftrace.sampling.tables import word_signs

_UNIT: Final = 2.0**20
_MOST: Final = 2.0**14


def project(rows: Tensor) -> Tensor:
    """Return the sums over the vocabulary of `rows` [N, V], int64 [N, PROJECTIONS] in units of 2^-20.

    Every partial sum is an integer below 2^53, which float64 holds exactly, for vocabularies of up to 2^19.
    """
    bounded = rows.nan_to_num(0.0, 0.0, 0.0).clamp_(-_MOST, _MOST)
    # Scaled by a power of two, so exact; float16 would overflow.
    fixed = (bounded if rows.dtype == torch.float64 else bounded.float()).mul_(_UNIT).round_()
    # Metal has no float64.
    return by_integers(fixed) if rows.device.type == "mps" else by_product(fixed)


def by_product(fixed: Tensor) -> Tensor:
    """Return the sums of whole numbers `fixed` [N, V] under the signs, as one product in float64."""
    return (fixed.double() @ word_signs(fixed.shape[1], torch.float64, fixed.device)).long()


def by_integers(fixed: Tensor) -> Tensor:
    """Return the same without float64, one projection after the other."""
    whole = fixed.long()
    signs = word_signs(fixed.shape[1], torch.int64, fixed.device)
    return torch.stack([(whole * column).sum(dim=1) for column in signs.T], dim=1)


def as_logits(sums: Tensor) -> Tensor:
    """Return int64 `sums` in units of 2^-20 as float32 in units of the logits."""
    return sums.float() / _UNIT
