from __future__ import annotations

import pytest

from difftrace.core.errors import FormatError
from difftrace.core.strict_json import loads, unprintable_string


def test_ordinary_json_is_read() -> None:
    text = '{"a": [1, -2.5, null, true, "\\u00e9é", "\\ud83d\\ude80"], "b": {}}'
    assert loads(text.encode()) == {"a": [1, -2.5, None, True, "éé", "🚀"], "b": {}}
    assert loads(b"18446744073709551615") == (1 << 64) - 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not complete JSON (line 1, column 1"),
        (b'{"a": 1', "is not complete JSON (line 1, column 8"),
        (b'{"a": 1} x', "is not complete JSON"),
        (b"\xff\xfe", "is not UTF-8 text (byte 0)"),
        (b"\xef\xbb\xbf{}", "is not complete JSON"),
        (b'{"a": 1, "a": 2}', "gives the key 'a' twice"),
        (b'{"x": {"\\u001b": 1, "\\u001b": 2}}', "twice in one object"),
        (b"[NaN]", "holds NaN, which is not JSON"),
        (b"-Infinity", "holds -Infinity, which is not JSON"),
        (b"1e999", "holds the number 1e999, which is too large"),
        (b"9" * 5000, "holds an integer of 5000 characters"),
        (b"[" * 200_000, "is nested too deeply"),
    ],
)
def test_everything_else_is_refused_in_one_line(data: bytes, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        loads(data)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


def test_half_a_surrogate_pair_is_found_wherever_it_is() -> None:
    assert unprintable_string(loads(b'{"a": [1, {"b": "\\ud83d\\ude80"}]}')) is None
    assert unprintable_string(loads(b'{"a": [1, {"b": "x\\ud83d"}]}')) == "$.a[1].b"
    assert unprintable_string(loads(b'{"a": {"\\ude80": 1}}')) == "$.a.\\ude80"
