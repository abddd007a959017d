"""Which records are meant, as SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from difftrace.core.errors import RecordError
from difftrace.core.recording import JsonScalar
from difftrace.store.record import Entry, Record, check_text, checked_metadata, in_utc, microseconds

_LAST_CHARACTER: Final = 0x10FFFF
_SURROGATES: Final = range(0xD800, 0xE000)

# One damaged record must not make a question about all fail.
_PAIRS: Final = "json_each(CASE WHEN json_valid(metadata) THEN metadata ELSE '{}' END)"
_IS_TEXT: Final = "type = 'text'"
_IS_NUMBER: Final = "type IN ('integer', 'real')"


@dataclass(frozen=True)
class Query:
    """The records that meet every condition given, oldest first, records of one moment by request id.

    Attributes:
        model: exactly this model.
        since: served at that time or later.
        until: served before that time.
        id_prefix: the request id starts with it, byte by byte.
        metadata: each key has exactly that value; as in JSON 1 and 1.0 are equal, 1, True and "1" are not.
        after: what follows this entry or record in the order, whether it still exists or not: the next page.
        limit: at most so many.
        newest_first: the order reversed.

    Raises:
        RecordError: a condition makes no sense.
    """

    model: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    id_prefix: str = ""
    metadata: Mapping[str, JsonScalar] = field(default_factory=dict)
    after: Entry | Record | None = None
    limit: int | None = None
    newest_first: bool = False

    def __post_init__(self) -> None:
        for name in ("model", "id_prefix"):
            if getattr(self, name):
                check_text(name, getattr(self, name))
        for name in ("since", "until"):
            if getattr(self, name) is not None:
                self.__dict__[name] = in_utc(name, getattr(self, name))
        self.__dict__["metadata"] = checked_metadata(self.metadata)
        if any("\0" in part for item in self.metadata.items() for part in item if isinstance(part, str)):
            raise RecordError("metadata holds a NUL character, at which SQLite's JSON functions end a text")
        if self.after is not None and not isinstance(self.after, (Entry, Record)):
            raise RecordError(f"after must be an entry or a record, not {type(self.after).__name__}")
        if self.limit is not None and (isinstance(self.limit, bool) or not isinstance(self.limit, int)):
            raise RecordError(f"limit must be an integer, not {type(self.limit).__name__}")
        if self.limit is not None and not 0 <= self.limit < 1 << 63:
            raise RecordError(f"limit is {self.limit}; it must be in 0..{(1 << 63) - 1}")

    @property
    def last(self) -> tuple[int, str] | None:
        """Time and request id of `after`."""
        return None if self.after is None else (microseconds(self.after.created_at), self.after.request_id)

    def sql(self, last: tuple[int, str] | None, limit: int | None) -> tuple[str, list[Any]]:
        """Return what follows `FROM record` in a SELECT of what comes after `last`, and its parameters."""
        conditions, parameters = self._conditions()
        direction, comparison = ("DESC", "<") if self.newest_first else ("ASC", ">")
        if last is not None:
            conditions.append(f"(created_at, request_id) {comparison} (?, ?)")
            parameters.extend(last)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        parameters.append(-1 if limit is None else limit)
        return f"{where} ORDER BY created_at {direction}, request_id {direction} LIMIT ?", parameters

    def _conditions(self) -> tuple[list[str], list[Any]]:
        given: list[tuple[str, list[Any]]] = []
        if self.model is not None:
            given.append(("model = ?", [self.model]))
        if self.since is not None:
            given.append(("created_at >= ?", [microseconds(self.since)]))
        if self.until is not None:
            given.append(("created_at < ?", [microseconds(self.until)]))
        if self.id_prefix:
            given.append(("request_id >= ?", [self.id_prefix]))
            following = _following(self.id_prefix)
            if following is not None:
                given.append(("request_id < ?", [following]))
        given.extend(_metadata_condition(key, value) for key, value in self.metadata.items())
        return [condition for condition, _ in given], [value for _, values in given for value in values]


EVERYTHING: Final = Query()
"""All records."""


def _following(prefix: str) -> str | None:
    """Return the smallest text above all that start with `prefix`; None if there is none.

    SQLite compares texts as their bytes of UTF-8, whose order is that of the code points.
    """
    kept = prefix.rstrip(chr(_LAST_CHARACTER))
    if not kept:
        return None
    successor = ord(kept[-1]) + 1
    return kept[:-1] + chr(_SURROGATES.stop if successor in _SURROGATES else successor)


def _metadata_condition(key: str, value: JsonScalar) -> tuple[str, list[Any]]:
    compared: JsonScalar
    if value is None or isinstance(value, bool):
        condition, compared = "type = ?", "null" if value is None else "true" if value else "false"
    else:
        condition, compared = f"{_IS_TEXT if isinstance(value, str) else _IS_NUMBER} AND value = ?", value
    return f"EXISTS (SELECT 1 FROM {_PAIRS} WHERE key = ? AND {condition})", [key, compared]  # noqa: S608
