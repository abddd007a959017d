"""Properties of a test in a JUnit file: what became of its checks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_difftrace.session import Entry


def note_properties(item: pytest.Item, entries: Sequence[Entry]) -> None:
    """Add status, class, step, position and the baseline's digest of checks, where a JUnit file is written."""
    if not item.config.getoption("xmlpath", None):
        return
    for entry in entries:
        check = entry["check"]
        prefix = "difftrace" if check["name"] is None else f"difftrace[{check['name']}]"
        first, baseline = check["first_divergence"] or {}, check["baseline"] or {}
        values = {
            "status": check["status"],
            "class": check["class"],
            "step": first.get("step"),
            "position": first.get("position"),
            "baseline": baseline.get("digest"),
        }
        known = {f"{prefix}.{name}": value for name, value in values.items() if value is not None}
        item.user_properties[:] = [one for one in item.user_properties if one[0] not in known]
        item.user_properties.extend((name, str(value)) for name, value in known.items())
