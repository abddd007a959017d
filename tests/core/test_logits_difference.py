"""Two files of logits, compared exactly."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from difftrace.core.errors import LogitsError
from difftrace.core.logits_codec import Lossless, Lossy, Method, Top
from difftrace.core.logits_difference import first_difference, logits_difference
from difftrace.core.logits_dtypes import DTYPES, Bits
from difftrace.core.logits_file import LogitsFile, open_logits
from difftrace.core.logits_layout import LogitsLayout
from difftrace.core.logits_writer import save_logits

LAYOUT = LogitsLayout("float32", 3, 2, 300_000, (7, 2))
RNG = np.random.default_rng(0)
GOLDEN = [
    DTYPES["float32"].bits(RNG.normal(size=(3, 2, length, 300_000)).astype(np.float64)) for length in LAYOUT.lengths
]


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> LogitsFile:
    path = tmp_path_factory.mktemp("golden") / "run.logits"
    save_logits(path, LAYOUT, Lossless(), GOLDEN)
    return open_logits(path)


def saved(folder: Path, change: tuple[int, ...], values: list[float], method: Method | None = None) -> LogitsFile:
    """The golden logits but for `values` from `change` on: sequence, step, pass, position, token."""
    arrays: list[Bits] = [array.copy() for array in GOLDEN]
    sequence, step, number, position, token = change
    words = DTYPES["float32"].bits(np.array(values))
    arrays[sequence][step, number, position, token : token + len(values)] = words
    save_logits(folder / "run.logits", LAYOUT, method or Lossless(), arrays)
    return open_logits(folder / "run.logits")


def test_equal_logits_differ_nowhere(golden: LogitsFile) -> None:
    assert first_difference(golden, golden) is None
    found = logits_difference(golden, golden, 1, 0)
    assert (found.largest, found.differing, found.compared) == (0.0, 0, 2 * 7 * 300_000)


def test_the_largest_difference_is_found_with_its_place(golden: LogitsFile, tmp_path: Path) -> None:
    before = float(golden.rows[0][2][1, 6, 299_998])
    other = saved(tmp_path, (0, 2, 1, 6, 299_997), [0.5, before + 9, 0.25])
    assert first_difference(golden, other) == (2, 0)
    found = logits_difference(golden, other, 2, 0)
    assert (found.number, found.position, found.token, found.differing) == (1, 6, 299_998, 3)
    assert found.golden == before
    assert found.largest == abs(found.observed - found.golden) == pytest.approx(9)
    assert logits_difference(golden, other, 1, 0).differing == 0


def test_the_first_sequence_that_differs_is_named(golden: LogitsFile, tmp_path: Path) -> None:
    assert first_difference(golden, saved(tmp_path, (1, 0, 0, 1, 5), [8.0])) == (0, 1)


def test_one_that_is_not_finite_is_infinitely_far_from_one_that_is(golden: LogitsFile, tmp_path: Path) -> None:
    other = saved(tmp_path, (1, 0, 0, 0, 5), [math.nan])
    found = logits_difference(golden, other, 0, 1)
    assert (found.largest, found.token, found.differing) == (math.inf, 5, 1)
    # NaN is no different from NaN.
    assert logits_difference(other, other, 0, 1).differing == 0


def test_within_a_bound_is_said_to_be_so(golden: LogitsFile, tmp_path: Path) -> None:
    other = saved(tmp_path, (0, 0, 0, 0, 0), [0.0], Lossy(0.125))
    assert first_difference(golden, other) is None
    found = logits_difference(golden, other, 1, 1)
    assert found.within == 0.125
    assert 0 < found.largest <= 0.125


def test_what_cannot_be_compared_is_refused(golden: LogitsFile, tmp_path: Path) -> None:
    top = saved(tmp_path, (0, 0, 0, 0, 0), [0.0], Top(3))
    with pytest.raises(LogitsError, match="ask for top"):
        logits_difference(golden, top, 0, 0)
    small = LogitsLayout("float32", 3, 1, 10, (7,))
    save_logits(tmp_path / "small.logits", small, Lossless(), [np.zeros((3, 1, 7, 10), dtype="<u4")])
    for step, sequence in ((0, 0), (5, 0), (0, 3)):
        with pytest.raises(LogitsError, match="not of the same shape"):
            logits_difference(golden, open_logits(tmp_path / "small.logits"), step, sequence)
