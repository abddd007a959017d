"""Philox4x32-10: random numbers computed from a counter and a key, the same integers on every device.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), and its library Random123,
whose known-answer vectors the tests hold this to.
"""

from __future__ import annotations

from torch import Tensor

# Four 32-bit words each. Those the first round only combines may be plain integers.
Counter = tuple[Tensor, Tensor | int, Tensor, Tensor | int]
Words = tuple[Tensor, Tensor, Tensor, Tensor]

WORD = 0xFFFFFFFF

_ROUNDS = 10
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85


def philox(counter: Counter, key: tuple[int, int]) -> Words:
    """Return the four random words of every `counter` under `key`.

    Words are unsigned 32-bit values in int64 tensors; the counter's broadcast against each other to the result's shape.
    Integer arithmetic only, and no wait for the device.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # All 64 bits of a product count, and int64 wraps around to exactly those. The shift drags the sign along,
        # and c1 and c3 keep more than their low word, until the mask takes both away.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1 = ((p1 >> 32) ^ c1 ^ k0) & WORD, p1
        c2, c3 = ((p0 >> 32) ^ c3 ^ k1) & WORD, p0
        k0, k1 = (k0 + _WEYL[0]) & WORD, (k1 + _WEYL[1]) & WORD
    return c0, p1 & WORD, c2, p0 & WORD


def odd_of(high: Tensor, low: Tensor) -> Tensor:
    """Return the odd integers below 2**53 made of the first 52 bits of `high` and `low`, two random words.

    Times 2**-53 they are uniform in (0, 1): never 0 or 1, symmetric about 1/2, and exact in float64.
    """
    return (high << 21) | ((low >> 12) << 1) | 1
