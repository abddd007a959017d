"""Forms of a column are left out only where another one is smaller for certain."""

from __future__ import annotations

import numpy as np
import pytest

from difftrace.core import columns
from difftrace.core.varint import varint, varint_size


@pytest.mark.parametrize("distinct", [2, 3, 5, 16, 17, 40, 64, 100, 128, 200, 256])
def test_zstd_never_gets_below_the_size_that_it_is_held_to(distinct) -> None:
    rng = np.random.default_rng(distinct)
    every = np.arange(distinct)
    kinds = [every, rng.permutation(distinct), np.repeat(every, 8), np.tile(every, 8), np.tile(every, 40)]
    kinds += [np.concatenate((every, np.zeros(n, dtype=int))) for n in (1, 10, 200, 16000)]
    kinds += [rng.permutation(np.concatenate((every, rng.integers(0, distinct, n)))) for n in (1, 5, 30, 300)]
    for values in kinds:
        if values.size >= 16:
            assert columns._zstd(values, distinct).size >= columns._least_zstd(values.size, distinct)


def test_the_form_is_the_smallest_of_all_that_can_be_written() -> None:
    rng = np.random.default_rng(0)
    for count in (16, 40, 128, 300):
        for base in (2, 64, 200, 5000, 126464):
            for values in (rng.integers(0, base, count), rng.choice(rng.integers(0, base, 1 + count // 3), count)):
                largest = int(values.max()) + 1
                table, indexes = np.unique(values, return_inverse=True)
                gaps = np.diff(table, prepend=0)
                head = len(varint(largest << 3) + varint(table.size) + varint(int(gaps.max()) + 1))
                inner = min(
                    columns._packed(indexes, table.size).size, columns._zstd(indexes.reshape(-1), table.size).size
                )
                dictionary = head + columns.packed_size(table.size, int(gaps.max()) + 1) + inner
                others = columns._packed(values, largest).size, columns._zstd(values, largest).size
                assert len(columns.write(values, columns.DICTIONARY)) == min(dictionary, *others)


def test_the_size_of_a_number_is_that_of_its_bytes() -> None:
    for value in (0, 1, 127, 128, 16383, 16384, 1 << 31, (1 << 63) - 1):
        assert varint_size(value) == len(varint(value))
