"""The largest logits of each row, and what makes probabilities of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from difftrace.core.logits_dtypes import Bits, LogitsDtype


@dataclass(frozen=True, eq=False)
class TopK:
    """The k largest logits of each row, largest first.

    NaN counts as larger than any number, as in torch. Of equal logits (+0 and -0, and all NaN among each other) those
    with the lowest token ids are kept, and come in their order.

    Attributes:
        ids: token ids, uint32 [..., k].
        bits: the logits' exact bits, [..., k].
        logsumexp: log(sum(exp(row))) over the whole vocabulary, float64 [...]: exp(logit - logsumexp) is a probability.
    """

    ids: npt.NDArray[np.uint32]
    bits: Bits
    logsumexp: npt.NDArray[np.float64]


def top_k(bits: Bits, dtype: LogitsDtype, k: int) -> TopK:
    """Return the `k` largest of each row of `bits` [R, V], 1 <= k <= V."""
    ids = np.empty((len(bits), k), dtype=np.uint32)
    for row, keys in enumerate(_keys(bits, dtype)):
        least = np.partition(keys, keys.size - k)[keys.size - k]
        above = np.flatnonzero(keys > least)
        chosen = np.concatenate((above, np.flatnonzero(keys == least)[: k - above.size]))
        # Ascending ids within equal keys, which a stable sort of the inverted keys leaves alone.
        chosen.sort()
        ids[row] = chosen[np.argsort(~keys[chosen], kind="stable")]
    return TopK(ids, np.take_along_axis(bits, ids.astype(np.intp), axis=1), log_sum_exp(bits, dtype))


def log_sum_exp(bits: Bits, dtype: LogitsDtype) -> npt.NDArray[np.float64]:
    """Return log(sum(exp(row))) of each row of `bits` [R, V] in float64; NaN and infinities as their sums have them."""
    with np.errstate(all="ignore"):
        values = dtype.values(bits).astype(np.float64)
        largest = values.max(axis=1)
        sums = np.log(np.exp(values - largest[:, None]).sum(axis=1)) + largest
    # An infinite maximum less itself is NaN, though the sum is that infinity.
    infinite: npt.NDArray[np.float64] = np.where(np.isinf(largest), largest, sums)
    return infinite


def _keys(bits: Bits, dtype: LogitsDtype) -> Bits:
    """Return unsigned integers in the order of the values."""
    if dtype.size == 2 and bits.size > 1 << 16:
        return _direct_keys(dtype.all_words(), dtype)[bits]
    return _direct_keys(bits, dtype)


def _direct_keys(bits: Bits, dtype: LogitsDtype) -> Bits:
    sign = dtype.word.type(dtype.sign)
    magnitude = bits & ~sign
    keys = np.where((bits & sign != 0) & (magnitude != 0), ~bits, magnitude | sign)
    keys[magnitude > dtype.infinity] = np.iinfo(dtype.word).max
    return keys
