"""Files and tests as reports name them: seen from pytest's root folder, the same in every process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# A test's node id without the group that pytest-xdist appends to it under --dist loadgroup.
PLAIN = pytest.StashKey[str]()


def from_root(path: Path, config: pytest.Config) -> str:
    """Return `path` seen from the root folder, with forward slashes and in characters that UTF-8 has."""
    try:
        seen = os.path.relpath(path, config.rootpath).replace(os.sep, "/")
    except ValueError:  # another drive on Windows
        seen = path.name
    return clean(seen)


def nodeid_of(item: pytest.Item) -> str:
    """Return the node id of `item`, good for a command line."""
    return clean(item.stash.get(PLAIN, item.nodeid))


def without_group(nodeid: str) -> str:
    """Return a node id that may come from an xdist worker under --dist loadgroup without its group."""
    head, separator, test = nodeid.rpartition("::")
    at = test.rfind("@")
    return f"{head}{separator}{test[:at]}" if at > test.rfind("]") else nodeid


def clean(text: str) -> str:
    """Return `text` with what has no UTF-8 form (bytes of a file's name, halves of characters) as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
