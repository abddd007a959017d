from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from difftrace.core.text import printable


@pytest.mark.parametrize(
    "text",
    ["", "plain text", "größer → ∞", "数字、仮名　全角", "می\u200cخواهم", "👩\u200d🚀", "a::b", "C:\\n", "## [x]"],
)
def test_ordinary_text_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x00\x07\x7f", "\\x00\\x07\\x7f"),
        ("\u202eabc\u2066\u200f", "\\u202eabc\\u2066\\u200f"),
        ("\u2028\u2029\u0085", "\\u2028\\u2029\\x85"),
        ("\ufeffx\u200b", "\\ufeffx\\u200b"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("\ue000", "\\ue000"),
        ("::error::x", "\\x3a:error::x"),
        ("  ::stop-commands::x", "  \\x3a:stop-commands::x"),
        ("\u3000::add-mask::x", "\u3000\\x3a:add-mask::x"),
        ("a ##[add-path]x", "a \\x23#[add-path]x"),
        ("###vso[task.setvariable]", "#\\x23#vso[task.setvariable]"),
    ],
)
def test_what_acts_on_terminals_and_logs_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_the_result_is_one_safe_line_that_stays_as_it_is(text: str) -> None:
    shown = printable(text)
    shown.encode("utf-8")
    assert len(shown.splitlines()) <= 1
    assert "\x1b" not in shown
    assert not shown.lstrip().startswith("::")
    assert printable(shown) == shown
