"""JSON read without the liberties of Python's reader: every key once, finite numbers, bounded digits, real
characters."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, Final, NoReturn

from difftrace.core.errors import FormatError
from difftrace.core.text import printable

_MOST_DIGITS: Final = 20


def loads(data: bytes) -> Any:
    """Return the document in the UTF-8 bytes `data`.

    Raises:
        FormatError: it is no such JSON; the message lacks the file's name, which the caller knows.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"is not UTF-8 text (byte {error.start})") from None
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except json.JSONDecodeError as error:
        raise FormatError(
            f"is not complete JSON (line {error.lineno}, column {error.colno}: {printable(error.msg)})"
        ) from None
    except RecursionError:
        raise FormatError("is nested too deeply") from None


def mapping(data: bytes) -> dict[str, Any]:
    """Return the object in the UTF-8 bytes `data`; raises FormatError as `loads` does, or where it is none."""
    document = loads(data)
    if not isinstance(document, dict):
        raise FormatError("is no JSON object")
    return document


def unprintable_string(document: Any, path: str = "$") -> str | None:
    """Return the JSON path of the first string in `document` that holds half a surrogate pair, or None.

    Such a string has no UTF-8 form, so that printing it would fail much later.
    """
    # Naming every place takes many times as long as looking at every string, and hardly ever is a place asked for.
    if all(map(_encodes, _texts(document))):
        return None
    return next((where for where, text in _strings(document, path) if not _encodes(text)), None)


def _texts(value: Any) -> Iterator[str]:
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            stack.extend(one)
            stack.extend(one.values())
        elif isinstance(one, list):
            stack.extend(one)


def _strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield f"{path}.{printable(key)}", key
            yield from _strings(item, f"{path}.{printable(key)}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _strings(item, f"{path}[{index}]")


def _encodes(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for key, value in pairs:
        if key in keys:
            raise FormatError(f"gives the key {printable(key)[:80]!r} twice in one object")
        keys[key] = value
    return keys


def _integer(digits: str) -> int:
    # Converting digits to an integer takes quadratic time on interpreters without a limit of their own.
    if len(digits) > _MOST_DIGITS:
        raise FormatError(f"holds an integer of {len(digits)} characters, more than the limit of {_MOST_DIGITS}")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise FormatError(f"holds the number {digits[:20]}, which is too large")
    return number


def _constant(name: str) -> NoReturn:
    raise FormatError(f"holds {name}, which is not JSON")
