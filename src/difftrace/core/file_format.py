"""The two fields that every JSON file of the product begins to be read with: its format and its version."""

from __future__ import annotations

import re
from typing import Any

from difftrace.core.errors import FormatError, NewerFormatError

Version = tuple[int, int]


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
