"""What a pack holds is what was put in, to the digits it promises."""

from __future__ import annotations

import base64
import json
import math
import struct
import zlib
from typing import Any

import numpy as np

from difftrace.reports.explorer.packing import Columns


def unpacked(pack: str) -> tuple[dict[str, Any], bytes]:
    data = zlib.decompress(base64.b64decode(pack))
    (length,) = struct.unpack_from("<I", data)
    return json.loads(data[4 : 4 + length]), data[4 + length :]


def numbers(data: bytes, count: int) -> list[int]:
    planes = np.frombuffer(data, dtype=np.uint8).reshape(-1, count)
    return [int.from_bytes(bytes(column), "little") for column in planes.T]


def test_integers_take_the_fewest_bytes_that_hold_them_lowest_bytes_first():
    for values, kind in (([0, 255], "u1"), ([7, 256], "u2"), ([1, 65536], "u4"), ([], "u1")):
        columns = Columns()
        assert columns.integers("n", np.array(values, dtype=np.int64)) == ["n", kind, len(values)]
        _, data = unpacked(columns.pack({}))
        assert len(data) == len(values) * int(kind[1])
        if values:
            assert numbers(data, len(values)) == values


def test_floats_are_within_one_part_in_64_and_keep_what_is_no_number():
    given = [0.0, -0.031234, 1e-30, 3.38e38, -3.38e38, math.inf, -math.inf, math.nan]
    columns = Columns()
    assert columns.floats("f", np.array(given, dtype=np.float32)) == ["f", "bf", len(given)]
    _, data = unpacked(columns.pack({}))
    read = [struct.unpack("<f", struct.pack("<I", bits << 16))[0] for bits in numbers(data, len(given))]
    for before, after in zip(given, read, strict=True):
        if math.isnan(before):
            assert math.isnan(after)
        elif math.isinf(before):
            assert before == after
        else:
            assert math.isclose(before, after, rel_tol=2**-6), (before, after)


def test_every_text_of_a_header_is_made_printable():
    header, _ = unpacked(Columns().pack({"a": ["\x1b[31m", {"\u202e": "::error::x"}], "n": 1, "z": None}))
    assert header == {"a": ["\\x1b[31m", {"\\u202e": "\\x3a:error::x"}], "n": 1, "z": None}
