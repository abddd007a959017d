"""Which check a test's item and the name of a check make."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import pytest

from difftrace.core.test_id import TestId

_CHECK_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")


def test_id(item: pytest.Item, name: object) -> TestId:
    """Return the identity of the check `name` in `item`; it holds nothing of the path or of what else was collected.

    Raises:
        ValueError: `name` is no text, or has characters that file names cannot be trusted with.
    """
    if name is not None and not (isinstance(name, str) and _CHECK_NAME.fullmatch(name)):
        raise ValueError(f"name={name!r}: a check's name consists of ASCII letters, digits, '_' and '-'")
    classes = [node.name for node in item.listchain() if isinstance(node, pytest.Class)]
    full = unicodedata.normalize("NFC", "::".join([*classes, item.name]))
    return TestId(item.path.name, full, name)


test_id.__test__ = False  # type: ignore[attr-defined]  # pytest collects functions of this name
