"""Baselines of older format versions as the current one, without a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from difftrace.core import strict_json
from difftrace.core.baseline_json import VERSION, parse
from difftrace.core.file_format import Version, json_file

Document = dict[str, Any]


def _unchanged(document: Document) -> Document:
    return document


# What turns a document of the first version into one of the second. 0.2 added evidence and budgets, 0.3 probes and a
# reference to logits: members that may be absent, and no others changed; 1.0 is 0.3.
_STEPS: Final[Mapping[Version, tuple[Version, Callable[[Document], Document]]]] = {
    (0, 1): ((0, 2), _unchanged),
    (0, 2): ((0, 3), _unchanged),
    (0, 3): ((1, 0), _unchanged),
}


def upgraded(data: bytes, source: str) -> bytes:
    """Return the file `data` in the current version: unchanged, byte by byte, if it is of that already.

    Every field of the older version is carried over as it stands, payloads and digests included; the result has passed
    all checks of a reader.

    Raises:
        FormatError: `data` is no valid baseline, or of a newer version; the message calls it `source`.
    """
    before = parse(data, source)
    document = strict_json.loads(data)
    version = _numbers(document["version"])
    if version == VERSION:
        return data
    while version != VERSION:
        version, change = _STEPS[version]
        document = {**change(document), "version": ".".join(map(str, version))}
    after = json_file(document)
    assert parse(after, source).same_decisions(before)
    return after


def _numbers(version: str) -> Version:
    major, minor = map(int, version.split("."))
    return major, minor
