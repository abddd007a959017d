"""Values without what says whose machine they are from: paths and the host's name."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from typing import Any, Final

# Absolute paths of POSIX and Windows, after a compiler's -I and -L too; ratios and URLs are none.
_PATH: Final = re.compile(
    r"(?:(?<![\w./-])|(?<=-[IL]))(?:~\w*|[A-Za-z]:)?[/\\](?:[^\s/\\'\",;:()\[\]]+[/\\])*[^\s/\\'\",;:()\[\]]+"
)
_SHORTEST_HOST: Final = 3


def redacted(value: Any) -> Any:
    """Return plain JSON data with every absolute path in its strings as "<path>" and the host's name as "<host>"."""
    if isinstance(value, Mapping):
        return {key: redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item) for item in value]
    return _text(value) if isinstance(value, str) else value


def _text(text: str) -> str:
    text = _PATH.sub("<path>", text)
    host = platform.node()
    # "localhost" and the like are no secret, and a name of two letters is part of many words.
    if len(host) < _SHORTEST_HOST or host == "localhost":
        return text
    return re.sub(rf"\b{re.escape(host)}\b", "<host>", text, flags=re.IGNORECASE)
