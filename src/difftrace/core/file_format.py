"""What all JSON files of the product share: how they are written, and how reading one begins."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from difftrace.core.errors import FormatError, NewerFormatError
from difftrace.core.text import printable

Version = tuple[int, int]


def json_file(document: Any) -> bytes:
    """Return a file's content for `document`: sorted keys, one to a line, in ASCII; equal for equal content.

    Raises:
        FormatError: it holds what JSON cannot, say NaN.
    """
    return _json(document, indent=1) + b"\n"


def json_bytes(document: Any) -> bytes:
    """Return `document` as JSON with sorted keys, without blanks, in ASCII: what digests are taken of.

    Raises:
        FormatError: it holds what JSON cannot, say NaN.
    """
    return _json(document, separators=(",", ":"))


@contextlib.contextmanager
def naming(source: str) -> Iterator[None]:
    """Put `source`, the name of a file or of a place in it, before the message of a FormatError raised within."""
    try:
        yield
    except FormatError as error:
        raise type(error)(f"{source}: {error}") from error.__cause__


def read_file(path: str | os.PathLike[str], most: int) -> tuple[bytes, str]:
    """Return the bytes of the file `path`, at most one more than `most`, and what messages call it.

    Raises:
        FormatError: one line naming the file, if it cannot be read.
    """
    path = Path(path)
    source = printable(str(path))
    try:
        with path.open("rb") as file:
            return file.read(most + 1), source
    except (OSError, ValueError) as error:
        raise FormatError(f"{source}: cannot be read ({printable(str(error))})") from error


def check_format(document: Any, name: str, readable: tuple[Version, ...], what: str) -> None:
    """Refuse foreign and newer files before their schema would complain about their fields.

    `name` is what `$.format` has to be, `readable` the versions there are, oldest first, `what` what such a file is
    ("baseline").

    Raises:
        FormatError: it is something else, or of a version that never was.
        NewerFormatError: a newer version of this package wrote it.
    """
    if not isinstance(document, dict) or document.get("format") != name:
        raise FormatError(f'$.format: is not "{name}", so this is no {what}')
    newest = ".".join(map(str, readable[-1]))
    version = document.get("version")
    matched = re.fullmatch(r"([0-9]{1,6})\.([0-9]{1,6})", version) if isinstance(version, str) else None
    if matched is None:
        raise FormatError(f'$.version: is not a version such as "{newest}"')
    found = (int(matched[1]), int(matched[2]))
    if found > readable[-1]:
        raise NewerFormatError(
            f"$.version: is {version}, written by a newer pytest-difftrace; this one reads up to {newest}, so update it"
        )
    if found not in readable:
        raise FormatError(f"$.version: {version} was never released")


def _json(document: Any, **layout: Any) -> bytes:
    try:
        return json.dumps(document, sort_keys=True, ensure_ascii=True, allow_nan=False, **layout).encode("ascii")
    except (TypeError, ValueError) as error:
        raise FormatError(f"holds a value that JSON cannot ({printable(str(error))})") from None
