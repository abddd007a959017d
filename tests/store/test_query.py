from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from difftrace.core.errors import RecordError
from difftrace.store import Query, Record, Store

Make = Callable[..., Record]


@pytest.fixture
def filled(store: Store, make_record: Make) -> Store:
    # Not in the order of their times.
    store.put_many([make_record(number) for number in (3, 1, 4, 0, 5, 2)])
    return store


def ids(store: Store, query: Query) -> list[str]:
    """The numbers of the records meant, after checking that all ways to ask agree."""
    found = [entry.request_id for entry in store.entries(query)]
    assert [record.request_id for record in store.records(query)] == found
    assert store.count(query) == len(found)
    return [request_id.removeprefix("request/") for request_id in found]


def at(second: int) -> datetime:
    return datetime(2026, 3, 1, 12, 0, second, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, "012345"),
        ({"newest_first": True}, "543210"),
        ({"limit": 2}, "01"),
        ({"limit": 0}, ""),
        ({"limit": 99}, "012345"),
        ({"limit": 2, "newest_first": True}, "54"),
        ({"model": "model-1"}, "14"),
        ({"model": "model"}, ""),
        ({"since": at(2)}, "2345"),
        ({"until": at(2)}, "01"),
        ({"since": at(2), "until": at(4)}, "23"),
        ({"since": at(2).astimezone(timezone(timedelta(hours=-3)))}, "2345"),
        ({"id_prefix": "request/"}, "012345"),
        ({"id_prefix": "request/4"}, "4"),
        ({"id_prefix": "REQUEST"}, ""),
        ({"metadata": {"tenant": "t1"}}, "135"),
        ({"metadata": {"tenant": "t1", "number": 3}}, "3"),
        ({"metadata": {"number": 3.0}}, "3"),
        ({"metadata": {"number": "3"}}, ""),
        ({"metadata": {"number": 1, "cached": False}}, "1"),
        ({"metadata": {"cached": True}}, "04"),
        ({"metadata": {"cached": 1}}, ""),
        ({"metadata": {"number": True}}, ""),
        ({"metadata": {"absent": None}}, ""),
        ({"model": "model-1", "since": at(2), "newest_first": True, "metadata": {"cached": True}}, "4"),
    ],
)
def test_records_that_meet_all_conditions_are_found_in_order(
    filled: Store, conditions: dict[str, Any], expected: str
) -> None:
    assert "".join(ids(filled, Query(**conditions))) == expected


def test_none_as_metadata_is_a_value(store: Store, make_record: Make) -> None:
    store.put_many(
        [make_record(0, metadata={"a": None}), make_record(1, metadata={"a": 0}), make_record(2, metadata={})]
    )
    assert ids(store, Query(metadata={"a": None})) == ["0"]


@pytest.mark.parametrize("key", ["a.b", 'a"b', "$", "[0]", "", "é", "%"])
def test_metadata_keys_are_taken_as_they_are(store: Store, make_record: Make, key: str) -> None:
    store.put_many([make_record(0, metadata={key: "x"}), make_record(1, metadata={"a": "x"})])
    assert ids(store, Query(metadata={key: "x"})) == ["0"]


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("size", [1, 2, 5, 6, 7])
def test_pages_continue_after_the_last_entry(filled: Store, size: int, newest_first: bool) -> None:
    found: list[str] = []
    query = Query(limit=size, newest_first=newest_first)
    while page := list(filled.entries(query)):
        found += [entry.request_id for entry in page]
        query = Query(limit=size, newest_first=newest_first, after=page[-1])
    assert found == [entry.request_id for entry in filled.entries(Query(newest_first=newest_first))]


def test_a_page_continues_after_an_entry_that_was_deleted(filled: Store) -> None:
    *_, last = filled.entries(Query(limit=3))
    filled.delete(last.request_id)
    assert ids(filled, Query(after=last)) == ["3", "4", "5"]
    assert ids(filled, Query(after=last, newest_first=True)) == ["1", "0"]


def test_records_of_one_moment_are_ordered_by_their_id(store: Store, make_record: Make) -> None:
    moment = at(0)
    names = ["b", "a", "é", "Z", "a/b", "\U0001f600"]
    store.put_many([make_record(0, name, created_at=moment) for name in names])
    assert ids(store, Query()) == sorted(names)
    assert ids(store, Query(newest_first=True)) == sorted(names, reverse=True)
    first, *_ = store.entries()
    assert ids(store, Query(after=first)) == sorted(names)[1:]


def test_long_lists_are_read_in_pages_without_gap_or_repetition(
    store: Store, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("difftrace.store.table._PAGE", 3)
    store.put_many([make_record(number) for number in range(10)])
    assert ids(store, Query()) == [str(number) for number in range(10)]
    assert ids(store, Query(limit=7)) == [str(number) for number in range(7)]
    assert ids(store, Query(limit=6, newest_first=True)) == ["9", "8", "7", "6", "5", "4"]


def test_what_is_stored_while_a_list_is_read_comes_up_if_its_place_is_still_ahead(
    store: Store, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("difftrace.store.table._PAGE", 2)
    store.put_many([make_record(number) for number in (1, 2, 3, 4)])
    entries = store.entries()
    next(entries)
    store.put_many([make_record(0), make_record(9)])
    store.delete("request/3")
    assert [entry.request_id[-1] for entry in entries] == ["2", "4", "9"]


@pytest.mark.parametrize(
    ("prefix", "found"),
    [
        ("a", ["a", "a/", "a\U0010ffff", "a\U0010ffffz"]),
        ("a\U0010ffff", ["a\U0010ffff", "a\U0010ffffz"]),
        ("\U0010ffff", ["\U0010ffff"]),
        ("\ud7ff", ["\ud7ff-"]),
        ("_", ["_"]),
        ("%", []),
    ],
)
def test_a_prefix_means_its_characters_and_no_pattern(
    store: Store, make_record: Make, prefix: str, found: list[str]
) -> None:
    names = ["a", "a/", "a\U0010ffff", "a\U0010ffffz", "b", "_", "A", "\U0010ffff", "\ud7ff-", "\ue000"]
    store.put_many([make_record(0, name) for name in names])
    assert ids(store, Query(id_prefix=prefix)) == sorted(found)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"since": datetime(2026, 1, 1)}, "since has no time zone"),
        ({"until": 5}, "until must be a datetime, not int"),
        ({"limit": -1}, "limit is -1"),
        ({"limit": True}, "limit must be an integer, not bool"),
        ({"limit": 1.0}, "limit must be an integer, not float"),
        ({"id_prefix": "\ud800"}, "id_prefix .* surrogate"),
        ({"model": 3}, "model must be a text"),
        ({"metadata": {"a": []}}, r"metadata\['a'\] must be"),
        ({"metadata": {"a\0b": 1}}, "NUL"),
        ({"metadata": {"a": "b\0"}}, "NUL"),
        ({"after": "request/1"}, "after must be an entry or a record, not str"),
    ],
)
def test_a_condition_that_makes_no_sense_is_refused(conditions: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        Query(**conditions)


def test_an_entry_tells_what_the_record_says(store: Store, make_record: Make) -> None:
    record = make_record(7)
    store.put(record)
    (entry,) = store.entries()
    assert (entry.request_id, entry.created_at, entry.model) == (record.request_id, record.created_at, record.model)
    assert dict(entry.metadata) == dict(record.metadata)
    assert entry.trajectory_digest == record.trajectory.digest
    assert (entry.prompt_length, entry.canvas_length, entry.num_steps, entry.num_events) == (5, 37, 8, 32)
