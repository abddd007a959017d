"""Text is measured in the columns a terminal gives it."""

from __future__ import annotations

import pytest

from difftrace.reports.columns import clip, pad, width


@pytest.mark.parametrize(
    ("text", "columns"),
    [("", 0), ("abc", 3), ("語", 2), ("e\u0301", 1), ("a\u200db", 2), ("ｱ", 1), ("Ａ", 2)],
)
def test_wide_characters_count_twice_and_combining_ones_not_at_all(text: str, columns: int) -> None:
    assert width(text) == columns


@pytest.mark.parametrize("text", ["a" * 50, "語" * 50, "e\u0301" * 50, "a" + "\u0301" * 500])
def test_clipped_text_fits(text: str) -> None:
    for columns in range(1, 12):
        assert width(clip(text, columns)) <= columns


def test_text_that_fits_is_kept_and_cut_text_says_so() -> None:
    assert clip("語語", 4) == "語語"
    assert clip("語語語", 5) == "語語…"


def test_padding_counts_columns_and_not_characters() -> None:
    assert pad("語", 4) == "語  "
