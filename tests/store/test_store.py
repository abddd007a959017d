from __future__ import annotations

import contextlib
import sqlite3
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from difftrace.core.errors import ConflictError, NotStoredError, RecordError, StoreError
from difftrace.store import Changes, Problem, Query, Record, Store

Make = Callable[..., Record]


@contextlib.contextmanager
def behind_the_stores_back(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that ignores the table's checks, to damage it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        yield connection


def test_what_is_put_is_got(store: Store, make_record: Make) -> None:
    record = make_record()
    assert store.put(record) is True
    restored = store.get(record.request_id)
    assert restored == record
    assert restored.trajectory == record.trajectory
    assert dict(restored.metadata) == dict(record.metadata)


def test_it_is_still_there_when_the_store_is_opened_again(path: Path, make_record: Make) -> None:
    with Store(path) as store:
        store.put(make_record())
    with Store(path) as store:
        assert store.get("request/0") == make_record()


@pytest.mark.parametrize(
    "request_id",
    [
        "a/b",
        "/",
        "..",
        "../../etc/passwd",
        ".",
        " ",
        "x" * 300,
        "é" * 300,
        "\U0001f600",
        "a\0b",
        "line\nbreak",
        "'; DROP TABLE record; --",
        "%s {} \\",
        "\u202etxt",
        "request?x=1#y",
        "C:\\CON",
    ],
)
def test_any_text_is_a_request_id(store: Store, make_record: Make, request_id: str) -> None:
    record = make_record(1, request_id)
    store.put_many([make_record(0), record])
    assert store.get(request_id) == record
    assert request_id in store
    assert [entry.request_id for entry in store.entries(Query(id_prefix=request_id))] == [request_id]
    assert store.verify_all() == []
    assert store.delete(request_id) == 1
    assert request_id not in store
    assert store.count() == 1


@pytest.mark.parametrize(("one", "other"), [("a", "A"), ("a", "a "), ("a", "a\0"), ("1", "01"), ("a/b", "a//b")])
def test_ids_that_look_alike_are_different(store: Store, make_record: Make, one: str, other: str) -> None:
    store.put_many([make_record(1, one), make_record(2, other)])
    assert store.get(one) == make_record(1, one)
    assert store.get(other) == make_record(2, other)


def test_ids_are_not_normalised(store: Store, make_record: Make) -> None:
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    store.put(make_record(1, composed))
    assert decomposed not in store


def test_the_same_record_twice_changes_nothing(store: Store, make_record: Make) -> None:
    assert store.put(make_record()) is True
    assert store.put(make_record()) is False
    assert store.put_many([make_record(), make_record(1), make_record(1)]) == Changes(added=1, unchanged=2)
    assert store.count() == 2


def test_a_later_attempt_keeps_the_first_time(store: Store, make_record: Make) -> None:
    store.put(make_record())
    assert store.put(make_record(created_at=make_record(5).created_at)) is False
    assert store.get("request/0").created_at == make_record().created_at


@pytest.mark.parametrize(
    ("field", "value"),
    [("output", [1]), ("output", None), ("model", "other"), ("model", None), ("metadata", {"number": 0})],
)
def test_a_different_record_under_the_same_id_is_an_error_that_names_the_difference(
    store: Store, make_record: Make, field: str, value: object
) -> None:
    store.put(make_record())
    with pytest.raises(ConflictError, match=f"'request/0' is taken by a record with another {field};.*replace=True"):
        store.put(make_record(**{field: value}))
    assert store.get("request/0") == make_record()


def test_a_different_trajectory_replaces_only_when_told(store: Store, make_record: Make) -> None:
    other = make_record(1, "request/0")
    store.put(make_record())
    with pytest.raises(ConflictError, match="another trajectory"):
        store.put(other)
    assert store.get("request/0") == make_record()
    assert store.put(other, replace=True) is True
    assert store.put(other, replace=True) is False
    assert store.get("request/0") == other
    assert store.count() == 1
    assert store.verify_all() == []


def test_many_are_stored_together_or_not_at_all(store: Store, make_record: Make) -> None:
    store.put(make_record(2))
    with pytest.raises(ConflictError):
        store.put_many([make_record(0), make_record(1), make_record(3, "request/2")])
    assert [entry.request_id for entry in store.entries()] == ["request/2"]
    changes = store.put_many([make_record(0), make_record(3, "request/2")], replace=True)
    assert changes == Changes(added=1, replaced=1)


def test_nothing_is_stored_for_nothing(store: Store) -> None:
    assert store.put_many([]) == Changes()
    assert store.delete() == 0
    assert list(store.entries()) == []


def test_an_unknown_id_is_an_error_that_names_file_and_id(store: Store, path: Path) -> None:
    with pytest.raises(NotStoredError, match=r"runs\.difftrace: no record has the request id 'nobody\\x1b'") as caught:
        store.get("nobody\x1b")
    assert isinstance(caught.value, LookupError)
    assert "nobody" not in store
    assert store.delete("nobody") == 0


@pytest.mark.parametrize("ask", [Store.get, Store.delete, Store.__contains__])
def test_what_can_be_no_id_is_refused_everywhere(store: Store, ask: Callable[[Store, str], object]) -> None:
    with pytest.raises(RecordError, match="half a surrogate"):
        ask(store, "\ud800")


def test_several_are_deleted_at_once(store: Store, make_record: Make) -> None:
    store.put_many([make_record(number) for number in range(6)])
    assert store.delete("request/0", "nobody", "request/3", "request/0") == 2
    assert store.delete_matching(Query(model="model-1", limit=1)) == 1
    assert [entry.request_id for entry in store.entries()] == ["request/2", "request/4", "request/5"]
    assert store.delete_matching(Query(until=make_record(5).created_at)) == 2
    assert store.verify_all() == []


def test_a_deleted_id_is_free_again(store: Store, make_record: Make) -> None:
    store.put(make_record())
    store.delete("request/0")
    assert store.put(make_record(1, "request/0")) is True


def test_vacuum_leaves_nothing_of_what_was_deleted(store: Store, path: Path, make_record: Make) -> None:
    secret = "tenant-of-the-deleted-record"
    store.put_many([make_record(number, metadata={"tenant": secret}) for number in range(200)])
    store.put(make_record(999))
    store.vacuum()
    before = path.stat().st_size
    store.delete_matching(Query(metadata={"tenant": secret}))
    store.vacuum()
    assert path.stat().st_size < before / 2
    assert store.get("request/999") == make_record(999)
    # Only now may the files be opened: closing them again would drop the locks of an open store.
    store.close()
    assert all(secret.encode() not in file.read_bytes() for file in path.parent.iterdir())


def test_a_whole_store_has_no_problems(store: Store, make_record: Make) -> None:
    assert store.verify_all() == []
    store.put_many([make_record(number) for number in range(10)])
    assert store.verify_all() == []


def test_every_damaged_record_is_listed_and_the_others_are_read(
    store: Store, path: Path, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("difftrace.store.table._PAGE", 2)
    store.put_many([make_record(number) for number in range(8)])
    with behind_the_stores_back(path) as connection:
        change = "UPDATE record SET {} WHERE request_id = 'request/{}'"
        connection.execute(change.format("trajectory = x'00'", 1))
        connection.execute(change.format("metadata = '{'", 3))
        connection.execute(change.format("output = (SELECT output FROM record WHERE request_id = 'request/0')", 5))
        connection.execute(change.format("model = CAST(x'ff' AS TEXT)", 6))
    problems = store.verify_all()
    assert [problem.request_id for problem in problems] == ["request/1", "request/3", "request/5", "request/6"]
    assert [problem.message.partition(" is damaged: ")[0] for problem in problems] == [
        f"the record 'request/{number}'" for number in (1, 3, 5, 6)
    ]
    assert all(problem.message.isprintable() for problem in problems)
    for number in (0, 2, 4, 7):
        assert store.get(f"request/{number}") == make_record(number)


def test_a_damaged_record_is_never_handed_out(store: Store, path: Path, make_record: Make) -> None:
    store.put(make_record())
    with behind_the_stores_back(path) as connection:
        connection.execute("UPDATE record SET output = x'01000000'")
    expected = "the record 'request/0' is damaged: digest does not match the record; it was changed"
    with pytest.raises(StoreError, match=expected):
        store.get("request/0")
    with pytest.raises(StoreError, match=expected):
        list(store.records())


def test_a_damaged_record_does_not_count_as_stored(store: Store, path: Path, make_record: Make) -> None:
    store.put(make_record())
    with behind_the_stores_back(path) as connection:
        connection.execute("UPDATE record SET trajectory = x'00'")
    with pytest.raises(StoreError, match="is damaged"):
        store.put(make_record())
    assert store.put(make_record(), replace=True) is True
    assert store.get("request/0") == make_record()


def test_a_damaged_record_can_be_deleted(store: Store, path: Path, make_record: Make) -> None:
    store.put(make_record())
    with behind_the_stores_back(path) as connection:
        connection.execute("UPDATE record SET metadata = 'x', created_at = 1 << 62")
    with pytest.raises(StoreError, match="is damaged"):
        list(store.entries())
    assert store.delete("request/0") == 1
    assert list(store.entries()) == []


def test_damaged_metadata_of_one_does_not_hide_others(store: Store, path: Path, make_record: Make) -> None:
    store.put_many([make_record(0), make_record(2)])
    with behind_the_stores_back(path) as connection:
        connection.execute("UPDATE record SET metadata = '{' WHERE request_id = 'request/0'")
    assert [entry.request_id for entry in store.entries(Query(metadata={"tenant": "t0"}))] == ["request/2"]


def test_damage_of_the_file_is_a_problem_without_an_id(path: Path, make_record: Make) -> None:
    with Store(path) as store:
        store.put_many([make_record(number) for number in range(300)])
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 4096] = bytes(4096)
    path.write_bytes(bytes(data))
    with Store(path) as store:
        problems = store.verify_all()
    assert Problem in {type(problem) for problem in problems}
    assert any(problem.request_id is None for problem in problems)


def test_a_closed_store_says_so(path: Path, make_record: Make) -> None:
    store = Store(path)
    store.close()
    store.close()
    with pytest.raises(StoreError, match=r"runs\.difftrace: this store has been closed"):
        store.put(make_record())
    with pytest.raises(StoreError, match="has been closed"):
        store.verify_all()


def test_closing_leaves_one_file(path: Path, make_record: Make) -> None:
    with Store(path) as store:
        store.put(make_record())
    assert [file.name for file in path.parent.iterdir()] == [path.name]
