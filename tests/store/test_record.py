from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from difftrace.core.errors import DiffTraceError, FormatError, RecordError, StoreError
from difftrace.store import Record
from difftrace.store.row import Row, decode, encode

Make = Callable[..., Record]

OTHER = f"sha256:{'0' * 64}"


def test_a_record_survives_its_row(make_record: Make) -> None:
    record = make_record(3)
    assert decode(encode(record)) == record


def test_only_the_trajectory_is_needed(make_record: Make) -> None:
    before = datetime.now(timezone.utc)
    record = Record("a", make_record().trajectory)
    assert before <= record.created_at <= datetime.now(timezone.utc)
    assert (record.output, record.model, dict(record.metadata)) == (None, None, {})
    assert decode(encode(record)) == record


def test_no_output_is_not_an_empty_one(make_record: Make) -> None:
    none, empty = make_record(output=None), make_record(output=[])
    assert none != empty
    assert decode(encode(none)).output is None
    restored = decode(encode(empty)).output
    assert restored is not None
    assert restored.tolist() == []


def test_the_output_is_a_copy_of_its_own(make_record: Make) -> None:
    served = np.array([1, 2, 3])
    record = make_record(output=served)
    served[0] = 9
    assert record.output is not None
    assert record.output.tolist() == [1, 2, 3]
    assert not record.output.flags.writeable


def test_an_output_may_differ_from_what_the_trajectory_ends_with(make_record: Make) -> None:
    restored = decode(encode(make_record(output=[7, 7])))
    assert restored.output is not None
    assert restored.output.tolist() == [7, 7]


def test_metadata_keeps_its_types(make_record: Make) -> None:
    metadata = {
        "text": "é\0\u2028",
        "whole": 1,
        "real": 1.0,
        "true": True,
        "none": None,
        "": -(2**63) + 1,
        "tiny": 5e-324,
    }
    restored = dict(decode(encode(make_record(metadata=metadata))).metadata)
    assert restored == metadata
    assert {key: type(value) for key, value in restored.items()} == {
        key: type(value) for key, value in metadata.items()
    }


def test_metadata_cannot_change_afterwards(make_record: Make) -> None:
    given = {"a": 1}
    record = make_record(metadata=given)
    given["a"] = 2
    assert dict(record.metadata) == {"a": 1}
    with pytest.raises(TypeError):
        record.metadata["a"] = 2  # type: ignore[index]


def test_times_are_kept_in_utc_to_the_microsecond(make_record: Make) -> None:
    time = datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    restored = decode(encode(make_record(created_at=time))).created_at
    assert restored == time
    assert restored.tzinfo is timezone.utc


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("request_id", "other"),
        ("output", [1]),
        ("output", None),
        ("model", "other"),
        ("model", None),
        ("metadata", {}),
        ("metadata", {"tenant": "t0", "number": 0.0, "cached": True}),
        ("created_at", datetime(2026, 1, 1, tzinfo=timezone.utc)),
    ],
)
def test_records_differ_in_any_field(make_record: Make, field: str, other: Any) -> None:
    record, changed = make_record(), make_record(**{field: other})
    assert record != changed
    assert record.digest != changed.digest
    assert len({record, changed, make_record()}) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"request_id": ""}, "request_id is empty"),
        ({"request_id": 7}, "request_id must be a text, not int"),
        ({"request_id": "a\ud800"}, r"request_id 'a\\ud800' holds half a surrogate pair"),
        ({"request_id": "é" * 2049}, "takes 4098 bytes, more than the limit of 4096"),
        ({"trajectory": b"bytes"}, "trajectory must be a Trajectory, not bytes"),
        ({"output": [-1]}, r"output\[0\] is -1"),
        ({"output": [[1]]}, "output must have one dimension"),
        ({"output": [1.5]}, "output must hold integers"),
        ({"model": ""}, "model is empty"),
        ({"metadata": [("a", 1)]}, "metadata must be a mapping, not list"),
        ({"metadata": {1: "a"}}, "metadata has the key '1', which is no text"),
        ({"metadata": {"a": {"b": 1}}}, r"metadata\['a'\] must be a text, .* not dict; nest nothing"),
        ({"metadata": {"a": float("nan")}}, r"metadata\['a'\] is nan, which JSON cannot hold"),
        ({"metadata": {"a": 2**63}}, r"metadata\['a'\] is an integer of more than 64 bits"),
        ({"metadata": {"a": "\udfff"}}, "metadata holds half a surrogate pair"),
        ({"metadata": {"a": "x" * (1 << 20)}}, "metadata takes 1048584 bytes as JSON, more than the limit"),
        ({"created_at": datetime(2026, 1, 1)}, "created_at has no time zone"),
        ({"created_at": "2026-01-01"}, "created_at must be a datetime, not str"),
        (
            {"created_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))},
            "no UTC time of the years 1 to 9999",
        ),
    ],
)
def test_what_cannot_be_stored_is_refused_when_the_record_is_made(
    make_record: Make, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecordError, match=message) as caught:
        make_record(**changes)
    assert isinstance(caught.value, (StoreError, ValueError, DiffTraceError))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"request_id": 3}, "request_id holds a int"),
        ({"request_id": "\udcff"}, "half a surrogate"),
        ({"created_at": 10**18}, "outside the years 1 to 9999"),
        ({"created_at": 1}, "digest does not match the record"),
        ({"model": "other"}, "digest does not match the record"),
        ({"metadata": "{"}, "metadata: is not complete JSON"),
        ({"metadata": "[]"}, "metadata is no JSON object"),
        ({"metadata": '{"a":{}}'}, "nest nothing"),
        ({"metadata": '{"a": 1}'}, "metadata is not written as it would be here"),
        ({"metadata": '{"a":1}'}, "digest does not match the record"),
        ({"metadata": "\udcff"}, "metadata: is not UTF-8"),
        ({"prompt_length": 6}, "prompt_length is 6, but the trajectory holds 5"),
        ({"num_events": 0}, "num_events is 0, but the trajectory holds 32"),
        ({"trajectory_digest": OTHER}, "trajectory_digest does not match the trajectory"),
        ({"trajectory": b"x"}, "trajectory: these bytes are not an encoded trajectory"),
        ({"trajectory": "text"}, "trajectory holds a str"),
        ({"output": b"123"}, "output has 3 bytes"),
        ({"output": b"\xff\xff\xff\xff"}, r"output\[0\] is -1"),
        ({"output": b"\1\0\0\0"}, "digest does not match the record"),
        ({"output": None}, "digest does not match the record"),
        ({"digest": OTHER}, "digest does not match the record"),
    ],
)
def test_a_row_that_was_changed_is_refused(make_record: Make, changes: dict[str, Any], message: str) -> None:
    row: Row = encode(make_record())._replace(**changes)
    with pytest.raises(FormatError, match=message):
        decode(row)


def test_another_trajectory_under_the_same_digest_is_refused(make_record: Make) -> None:
    row = encode(make_record())._replace(trajectory=encode(make_record(1)).trajectory)
    with pytest.raises(FormatError, match="trajectory_digest does not match"):
        decode(row)
