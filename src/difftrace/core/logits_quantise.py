"""Logits rounded within an absolute bound that every one of them keeps.

A value becomes the nearest multiple of the largest power of two that is not above twice the bound. Such a multiple
needs no more bits than the value itself, so that the dtype holds it exactly and nothing is rounded a second time: the
error is at most half the power of two. That dyadic rounding is the bit rounding of M. Klöwer et al. ("Compressing
atmospheric data into its real information content", 2021); exact exceptions beside bounded integers are those of SZ
(S. Di and F. Cappello, "Fast error-bounded lossy HPC data compression with SZ", 2016).

The proof is not relied upon. What a reader will get is compared with each value, in the dtype it will get it in, and a
value that would leave the bound is kept exactly; so are NaN with its payload, infinities, and values too large for the
integers. For a 16-bit dtype all 65,536 values are compared beforehand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from difftrace.core.errors import LogitsError
from difftrace.core.logits_dtypes import Bits, LogitsDtype

# The code of a value that is kept exactly.
EXACT: Final = 0


@dataclass(frozen=True)
class Rounded:
    """Values within their bound: as `bits` of their dtype, and as `codes`.

    A code is 1 + 2k for the k-th multiple upwards from 0, 2k for the k-th one downwards, EXACT for what is kept.
    """

    bits: Bits
    codes: Bits


class Quantiser:
    """Rounds values of `dtype` within `bound`.

    Attributes:
        step: the distance of multiples, a power of two of at most 2 * bound.
        code_word: the dtype of codes.
    """

    def __init__(self, dtype: LogitsDtype, bound: float) -> None:
        check_bound(bound)
        self._dtype = dtype
        self._bound = float(bound)
        # 2 * bound lies in [2**exponent, 2**(exponent + 1)); the last of them are beyond float64.
        exponent = math.frexp(self._bound)[1]
        self.step = math.ldexp(1.0, min(exponent, 1023))
        self.code_word: np.dtype[Any] = np.dtype("<u2" if dtype.size == 2 else "<u4")
        self._most = (int(np.iinfo(self.code_word).max) - 1) // 2
        self._rounded: Rounded | None = None
        self._restored: Bits | None = None
        if dtype.size == 2:
            self._rounded = self._round(dtype.all_words())
            self._restored = self._restore(np.arange(1 << 16, dtype=np.uint32).astype(self.code_word))

    def round(self, bits: Bits) -> Rounded:
        """Return the values with these `bits` [n] within the bound."""
        if self._rounded is None:
            return self._round(bits)
        return Rounded(self._rounded.bits[bits], self._rounded.codes[bits])

    def restore(self, codes: Bits) -> Bits:
        """Return the bits that `codes` [n] stand for; for EXACT anything."""
        return self._restore(codes) if self._restored is None else self._restored[codes]

    def _round(self, bits: Bits) -> Rounded:
        with np.errstate(all="ignore"):
            values = self._dtype.values(bits).astype(np.float64)
            multiples = np.rint(values / self.step)
            # False for NaN as well.
            fits = np.abs(multiples) <= self._most
            multiples = np.where(fits, multiples, 0.0).astype(np.int64)
            codes = np.where(multiples < 0, -2 * multiples, 2 * multiples + 1)
            rounded = self._restore(codes.astype(self.code_word))
            error = np.abs(values - self._dtype.values(rounded).astype(np.float64))
            fits &= error <= self._bound
        return Rounded(np.where(fits, rounded, bits), np.where(fits, codes, EXACT).astype(self.code_word))

    def _restore(self, codes: Bits) -> Bits:
        wide = codes.astype(np.int64)
        multiples: npt.NDArray[np.int64] = np.where(wide & 1, wide >> 1, -(wide >> 1))
        with np.errstate(all="ignore"):
            return self._dtype.bits(multiples * self.step)


def check_bound(bound: float) -> None:
    """Raise LogitsError unless `bound` is a positive, finite number."""
    if isinstance(bound, bool) or not isinstance(bound, int | float) or not 0 < bound < math.inf:
        raise LogitsError(f"an error bound must be a finite number above 0, not {bound!r}")
