"""What a bug report needs, as lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from difftrace.core.text import printable
from difftrace.reports.columns import wrapped

# What torch says of its build fills a screen with compiler flags.
_LONG: Final = "config"


def installation_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the text for the document that schemas/info.schema.json describes: a title for each part, then its fields.

    The configuration of torch's build is left out.
    """
    for title, part in document.items():
        if title in ("format", "version"):
            continue
        yield f"{title.replace('_', ' ')}:"
        if not isinstance(part, Mapping) or not part:
            yield f"  {'none' if not part else printable(str(part))}"
            continue
        for name, value in part.items():
            if name == _LONG:
                continue
            yield from wrapped(f"{name} {_shown(value)}", "  ")


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value).replace("null", "none")
