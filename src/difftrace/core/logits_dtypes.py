"""The dtypes that models compute logits in, as words of bits: numpy knows no bfloat16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from difftrace.core.errors import LogitsError

Bits = npt.NDArray[np.unsignedinteger[Any]]
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class LogitsDtype:
    """A floating-point dtype of IEEE 754's layout: sign, exponent, mantissa.

    Attributes:
        name: torch's name without its prefix, "bfloat16".
        code: its number in files.
        size: bytes of one value.
        exponent_bits: how many.
    """

    name: str
    code: int
    size: int
    exponent_bits: int

    @property
    def word(self) -> np.dtype[Any]:
        """Unsigned integers of its size, little-endian."""
        return np.dtype(f"<u{self.size}")

    @property
    def sign(self) -> int:
        """The word of -0."""
        return 1 << (8 * self.size - 1)

    @property
    def infinity(self) -> int:
        """The word of +inf; larger ones below `sign` are NaN."""
        return ((1 << self.exponent_bits) - 1) << (8 * self.size - 1 - self.exponent_bits)

    def all_words(self) -> Bits:
        """Return every word of a 16-bit dtype in order, [65536]."""
        assert self.size == 2
        return np.arange(1 << 16, dtype=np.uint32).astype(self.word)

    def values(self, bits: Bits) -> Floats:
        """Return `bits` as numbers of numpy's dtype of this name, bfloat16 as float32; exact."""
        if self.name == "bfloat16":
            return (bits.astype("<u4") << 16).view("<f4")
        return np.ascontiguousarray(bits).view(f"<f{self.size}")

    def bits(self, values: Floats) -> Bits:
        """Return words of `values`: exact where the dtype holds them, else of a neighbour or infinity."""
        with np.errstate(over="ignore", under="ignore"):
            if self.name == "bfloat16":
                return (values.astype("<f4").view("<u4") >> 16).astype(self.word)
            return values.astype(f"<f{self.size}").view(self.word)


DTYPES: Final = {
    dtype.name: dtype
    for dtype in (
        LogitsDtype("bfloat16", 1, 2, 8),
        LogitsDtype("float16", 2, 2, 5),
        LogitsDtype("float32", 3, 4, 8),
        LogitsDtype("float64", 4, 8, 11),
    )
}


def dtype_named(name: str) -> LogitsDtype:
    """Return the dtype `name`.

    Raises:
        LogitsError: logits of that dtype cannot be recorded.
    """
    if name not in DTYPES:
        raise LogitsError(f"logits of {name} cannot be recorded, only those of {', '.join(DTYPES)}")
    return DTYPES[name]
