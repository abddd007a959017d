"""How chunks of logits become bytes: exactly, within an error bound, or as the largest few of each row.

A chunk is R rows of V logits. Its content, what a reader gets back, has a SHA-256 digest that does not depend on how
it was compressed: equal digests are equal content, whichever release of zstd wrote it.

- DENSE_BITS: the byte 0, then the words of the content as planes (`logits_planes`).
- DENSE_CODES: the byte 1, varint number of exceptions, then the exceptions' words and the codes of `logits_quantise` as
  planes. Only within a bound.
- Of the largest few: ids, words and the float64 words of logsumexp as planes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from difftrace.core.errors import FormatError, LogitsError
from difftrace.core.logits_dtypes import Bits, LogitsDtype
from difftrace.core.logits_planes import read_planes, write_planes
from difftrace.core.logits_quantise import EXACT, Quantiser, check_bound
from difftrace.core.logits_topk import TopK, top_k
from difftrace.core.varint import Reader, varint

_BITS: Final = 0
_CODES: Final = 1
# As many values tell which form is smaller.
_SAMPLE: Final = 1 << 15
_WIDE: Final = np.dtype("<u8")
_ID: Final = np.dtype("<u4")


@dataclass(frozen=True)
class Lossless:
    """Every bit as the model returned it."""


@dataclass(frozen=True)
class Lossy:
    """Every logit within `bound`, in units of logits, of what the model returned; NaN and infinities exactly.

    Raises:
        LogitsError: the bound is not a finite number above 0.
    """

    bound: float

    def __post_init__(self) -> None:
        check_bound(self.bound)


@dataclass(frozen=True)
class Top:
    """The `k` largest logits of each position exactly, and the log of the sum of all exponentials.

    Raises:
        LogitsError: k is not a positive integer.
    """

    k: int

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise LogitsError(f"the number of largest logits must be a positive integer, not {self.k!r}")


Method: TypeAlias = "Lossless | Lossy | Top"


class DenseCodec:
    """Chunks of which every value is kept, exactly where `bound` is None."""

    def __init__(self, dtype: LogitsDtype, bound: float | None) -> None:
        self._dtype = dtype
        self._quantiser = None if bound is None else Quantiser(dtype, bound)

    def encode(self, bits: Bits) -> tuple[bytes, bytes]:
        """Return payload and digest of the chunk `bits` [R, V]."""
        flat = np.ascontiguousarray(bits, dtype=self._dtype.word).reshape(-1)
        if self._quantiser is None:
            return bytes((_BITS,)) + write_planes(flat), self.digest(flat)
        rounded = self._quantiser.round(flat)
        start = max(0, flat.size - _SAMPLE) // 2
        sample = slice(start, start + _SAMPLE)
        # Codes are close to the content's entropy where the step is coarse, bits where most values keep their own.
        if len(_write_codes(rounded.bits[sample], rounded.codes[sample])) < len(write_planes(rounded.bits[sample])):
            payload = bytes((_CODES,)) + _write_codes(rounded.bits, rounded.codes)
        else:
            payload = bytes((_BITS,)) + write_planes(rounded.bits)
        return payload, self.digest(rounded.bits)

    def decode(self, payload: bytes, shape: tuple[int, int]) -> Bits:
        """Return the chunk of `shape` [R, V]; raises FormatError where `payload` is none."""
        count = shape[0] * shape[1]
        form, reader = payload[:1], Reader(payload, 1, len(payload))
        if form == bytes((_BITS,)):
            bits = read_planes(reader, count, self._dtype.word)
        elif form == bytes((_CODES,)) and self._quantiser is not None:
            bits = self._read_codes(reader, count, self._quantiser)
        else:
            raise FormatError("a chunk has a form that its method does not have")
        check_end(reader)
        return bits.reshape(shape)

    @staticmethod
    def digest(content: Bits) -> bytes:
        """Return the SHA-256 of a chunk's content."""
        return hashlib.sha256(np.ascontiguousarray(content).data).digest()

    def _read_codes(self, reader: Reader, count: int, quantiser: Quantiser) -> Bits:
        exceptions = read_planes(reader, reader.bounded(count, "the number of exceptions"), self._dtype.word)
        codes = read_planes(reader, count, quantiser.code_word)
        where = np.flatnonzero(codes == EXACT)
        if where.size != exceptions.size:
            raise FormatError(f"a chunk has {exceptions.size} exceptions where its codes name {where.size}")
        bits = quantiser.restore(codes)
        bits[where] = exceptions
        return bits


class TopCodec:
    """Chunks of which the `k` largest values of each row are kept."""

    def __init__(self, dtype: LogitsDtype, k: int) -> None:
        self._dtype = dtype
        self._k = k

    def encode(self, bits: Bits) -> tuple[bytes, bytes]:
        """Return payload and digest of the chunk `bits` [R, V]."""
        kept = top_k(np.ascontiguousarray(bits, dtype=self._dtype.word), self._dtype, self._k)
        columns = (kept.ids.astype(_ID), kept.bits, kept.logsumexp.view(_WIDE))
        return b"".join(write_planes(column.reshape(-1)) for column in columns), self.digest(kept)

    def decode(self, payload: bytes, shape: tuple[int, int]) -> TopK:
        """Return what is kept of a chunk of `shape` [R, V]; raises FormatError where `payload` is none."""
        rows, vocabulary = shape
        reader = Reader(payload, 0, len(payload))
        ids = read_planes(reader, rows * self._k, _ID).astype(np.uint32).reshape(rows, self._k)
        bits = read_planes(reader, rows * self._k, self._dtype.word).reshape(rows, self._k)
        sums = read_planes(reader, rows, _WIDE).view("<f8")
        check_end(reader)
        if int(ids.max()) >= vocabulary:
            raise FormatError(f"a chunk names the token {ids.max()}, outside the vocabulary of {vocabulary}")
        return TopK(ids, bits, sums)

    @staticmethod
    def digest(content: TopK) -> bytes:
        """Return the SHA-256 of a chunk's content."""
        columns = (content.ids.astype(_ID), content.bits, content.logsumexp.astype("<f8"))
        return hashlib.sha256(b"".join(column.tobytes() for column in columns)).digest()


def codec_of(method: Method, dtype: LogitsDtype) -> DenseCodec | TopCodec:
    """Return what encodes and decodes chunks by `method`."""
    if isinstance(method, Top):
        return TopCodec(dtype, method.k)
    return DenseCodec(dtype, method.bound if isinstance(method, Lossy) else None)


def check_end(reader: Reader) -> None:
    """Raise FormatError where bytes are left."""
    if reader.position != reader.end:
        raise FormatError(f"{reader.end - reader.position} bytes follow an encoded chunk")


def _write_codes(bits: Bits, codes: Bits) -> bytes:
    exceptions = bits[codes == EXACT]
    return varint(exceptions.size) + write_planes(exceptions) + write_planes(codes)
