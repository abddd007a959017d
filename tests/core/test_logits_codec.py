"""Logits as bytes: every bit, or every element within its bound."""

from __future__ import annotations

import math
import os
from fractions import Fraction

import numpy as np
import pytest

from difftrace.core.errors import FormatError, LogitsError
from difftrace.core.logits_codec import Lossless, Lossy, Method, Top, codec_of
from difftrace.core.logits_dtypes import DTYPES, Bits, LogitsDtype
from difftrace.core.logits_topk import TopK, log_sum_exp, top_k

# A million of every kind with DIFFTRACE_TEST_FULL=1.
COUNT = 1_000_000 if os.environ.get("DIFFTRACE_TEST_FULL") == "1" else 100_000
NAMES = tuple(DTYPES)
BOUNDS = (0.1, 0.01, 0.001)
KINDS = ("any exponent", "subnormal", "zeros", "infinities", "NaN", "near the largest", "halfway", "logits")


def words(kind: str, dtype: LogitsDtype, count: int = COUNT) -> Bits:
    """Return `count` random words of one kind, both signs."""
    rng = np.random.default_rng(KINDS.index(kind))
    size = 8 * dtype.size
    mantissa = size - 1 - dtype.exponent_bits
    signs = rng.integers(0, 2, count, dtype=np.uint64) << np.uint64(size - 1)
    if kind in ("halfway", "logits"):
        # Multiples of a sixteenth of a bound's step meet every tie of rounding.
        values = rng.integers(-4096, 4096, count) * 2.0**-13 if kind == "halfway" else rng.normal(-2, 4, count)
        return dtype.bits(values)
    low, high = {
        "any exponent": (0, dtype.infinity),
        "subnormal": (1, 1 << mantissa),
        "zeros": (0, 1),
        "infinities": (dtype.infinity, dtype.infinity + 1),
        "NaN": (dtype.infinity + 1, dtype.sign),
        "near the largest": (dtype.infinity - (4 << mantissa), dtype.infinity),
    }[kind]
    return (rng.integers(low, high, count, dtype=np.uint64) | signs).astype(dtype.word)


def coded(method: Method, dtype: LogitsDtype, bits: Bits) -> Bits:
    codec = codec_of(method, dtype)
    payload, digest = codec.encode(bits)
    content = codec.decode(payload, (bits.shape[0], bits.shape[1]))
    assert not isinstance(content, TopK)
    assert codec_of(Lossless(), dtype).digest(content) == digest  # type: ignore[arg-type]
    return content


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_lossless_gives_every_bit_back(name: str, kind: str) -> None:
    bits = words(kind, DTYPES[name]).reshape(100, -1)
    assert np.array_equal(coded(Lossless(), DTYPES[name], bits), bits)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_no_element_leaves_the_bound_in_the_dtype_it_comes_back_in(name: str, kind: str, bound: float) -> None:
    dtype = DTYPES[name]
    bits = words(kind, dtype).reshape(100, -1)
    found = coded(Lossy(bound), dtype, bits)
    with np.errstate(invalid="ignore"):  # signalling NaN
        before, after = (dtype.values(one).astype(np.longdouble) for one in (bits, found))
    special = ~np.isfinite(before)
    # Payloads of NaN and infinities are kept to the bit.
    assert np.array_equal(found[special], bits[special])
    assert np.isfinite(after[~special]).all()
    # Where the two differ both are finite, and subtracting them in extended precision is exact.
    assert np.abs(after[~special] - before[~special]).max(initial=0) <= np.longdouble(bound)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
@pytest.mark.parametrize("bound", [5e-324, 1e-40, 2.0**-24, 0.07, 0.125, 1.0, 3e4, 4e38, 1.7e308])
def test_every_value_of_a_16_bit_dtype_keeps_any_bound_in_exact_arithmetic(name: str, bound: float) -> None:
    dtype = DTYPES[name]
    bits = dtype.all_words()
    found = coded(Lossy(bound), dtype, bits.reshape(256, 256)).reshape(-1)
    for before, after in zip(dtype.values(bits).tolist(), dtype.values(found).tolist(), strict=True):
        if math.isfinite(before) and before != after:
            assert abs(Fraction(before) - Fraction(after)) <= Fraction(bound)
        elif not math.isfinite(before):
            assert before == after or (before != before and after != after)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["float32", "float64"])
@pytest.mark.parametrize("bound", [5e-324, 1e-30, 1e30, 1.7e308])
def test_wide_dtypes_keep_extreme_bounds(name: str, kind: str, bound: float) -> None:
    dtype = DTYPES[name]
    bits = words(kind, dtype, 1000).reshape(10, 100)
    found = coded(Lossy(bound), dtype, bits)
    for before, after in zip(dtype.values(bits).flat, dtype.values(found).flat, strict=True):
        if np.isfinite(before):
            assert abs(Fraction(float(before)) - Fraction(float(after))) <= Fraction(bound)


def test_a_bound_shrinks_logits_and_a_wide_one_more() -> None:
    dtype = DTYPES["bfloat16"]
    bits = words("logits", dtype, 1 << 17).reshape(8, -1)
    exact, fine, coarse = (
        len(codec_of(method, dtype).encode(bits)[0]) for method in (Lossless(), Lossy(0.01), Lossy(0.1))
    )
    assert coarse < 0.5 * bits.nbytes
    assert coarse < fine < exact < 0.7 * bits.nbytes


def test_a_bound_that_rounds_next_to_nothing_costs_no_more_than_exact_logits() -> None:
    dtype = DTYPES["bfloat16"]
    bits = words("logits", dtype, 1 << 17).reshape(8, -1)
    exact, tiny = (len(codec_of(method, dtype).encode(bits)[0]) for method in (Lossless(), Lossy(1e-5)))
    assert tiny <= exact


@pytest.mark.parametrize("bound", [0.0, -1.0, math.inf, math.nan, True, "0.1"])
def test_a_bound_that_is_none_is_refused(bound: float) -> None:
    with pytest.raises(LogitsError, match="finite number above 0"):
        Lossy(bound)


@pytest.mark.parametrize("name", NAMES)
def test_the_largest_of_each_row_are_those_of_a_plain_sort(name: str) -> None:
    dtype = DTYPES[name]
    rng = np.random.default_rng(1)
    # Few different values, so that ties are everywhere.
    bits = dtype.bits(np.concatenate((rng.integers(-3, 4, (40, 3000)), rng.normal(size=(40, 3000)))).astype(np.float64))
    found = top_k(bits, dtype, 7)
    values = dtype.values(bits).astype(np.float64)
    expected = np.argsort(-values, axis=1, kind="stable")[:, :7]
    assert np.array_equal(found.ids, expected)
    assert np.array_equal(found.bits, np.take_along_axis(bits, expected, axis=1))
    assert found.logsumexp == pytest.approx(np.log(np.exp(values).sum(axis=1)), rel=1e-12)


def test_ties_go_to_the_lowest_id_whatever_the_sign_of_zero_or_the_payload_of_nan() -> None:
    bits = np.array([[0x8000, 0x0000, 0x7FC1, 0x3F80, 0xFFC0, 0x7F80, 0xFF80]], dtype="<u2")
    found = top_k(bits, DTYPES["bfloat16"], 6)
    assert found.ids.tolist() == [[2, 4, 5, 3, 0, 1]]
    assert found.bits[0].tolist() == [0x7FC1, 0xFFC0, 0x7F80, 0x3F80, 0x8000, 0x0000]


def test_sums_of_rows_that_are_not_finite_are_what_they_are() -> None:
    rows = np.array([[1, math.inf], [-math.inf, -math.inf], [1, math.nan], [-math.inf, 2], [1000, 1000]])
    sums = log_sum_exp(DTYPES["float64"].bits(rows), DTYPES["float64"]).tolist()
    assert sums[:2] == [math.inf, -math.inf]
    assert math.isnan(sums[2])
    assert sums[3:] == pytest.approx([2, 1000 + math.log(2)])


def test_the_largest_few_come_back() -> None:
    dtype = DTYPES["float32"]
    bits = words("logits", dtype, 5000).reshape(5, 1000)
    codec = codec_of(Top(12), dtype)
    payload, digest = codec.encode(bits)
    found, expected = codec.decode(payload, (5, 1000)), top_k(bits, dtype, 12)
    assert isinstance(found, TopK)
    for name in ("ids", "bits", "logsumexp"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))
    assert codec.digest(found) == digest  # type: ignore[arg-type]
    assert len(payload) < 12 * 5 * 10


@pytest.mark.parametrize("k", [0, -1, True, 1.5])
def test_a_number_that_is_none_is_refused(k: int) -> None:
    with pytest.raises(LogitsError, match="positive integer"):
        Top(k)


@pytest.mark.parametrize("method", [Lossless(), Lossy(0.1), Top(3)])
def test_damaged_payloads_decode_to_their_shape_or_raise_one_error(method: Method) -> None:
    dtype = DTYPES["bfloat16"]
    bits = words("logits", dtype, 4000)
    bits[::7] = 0x7F80
    codec = codec_of(method, dtype)
    payload, _ = codec.encode(bits.reshape(4, 1000))
    rng = np.random.default_rng(2)
    refused = 0
    for _ in range(300):
        damaged = bytearray(payload)
        for place in rng.integers(0, min(len(payload), 200), 3):
            damaged[place] = rng.integers(0, 256)
        cut = bytes(damaged[: rng.integers(len(payload) // 2, len(payload) + 1)])
        try:
            codec.decode(cut, (4, 1000))
        except FormatError:
            refused += 1
    assert refused > 100


def test_a_plane_cannot_expand_beyond_its_chunk() -> None:
    zstandard = pytest.importorskip("zstandard")
    bomb = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 26))
    stated = zstandard.ZstdCompressor(write_content_size=True).compress(bytes(1 << 26))
    for frame, message in ((bomb, "does not expand|expands to"), (stated, "states its expanded size")):
        payload = bytes((0, *_varint(len(frame)))) + frame
        with pytest.raises(FormatError, match=message):
            codec_of(Lossless(), DTYPES["bfloat16"]).decode(payload, (1, 10_000))


def _varint(value: int) -> bytes:
    from difftrace.core.varint import varint

    return varint(value)
