"""The determinism profiles, from the table that enforcement reads."""

from __future__ import annotations

from difftrace.determinism.profiles import AS_FOUND, PROFILES, TABLE, Row
from reference_pages.markdown import prose, table

_HEAD = """# Determinism profiles

A profile is what has to be set for a device to repeat itself. The device decides which one holds;
`--difftrace-profile` asks for another. Names in capitals are environment variables, the others settings of torch. A
variable that must be set before something happens, and was not, is an error and never ignored.
"""


def page() -> str:
    """Return the page."""
    lines = [_HEAD, *table(("profile", "for"), [(f"`{name}`", prose(what)) for name, what in PROFILES.items()])]
    for name in PROFILES:
        lines += [f"## {name}", ""]
        rows = [(f"`{row.name}`", _value(row), row.when, prose(row.why)) for row in TABLE if name in row.profiles]
        lines += table(("switch", "value", "before", "without it"), rows)
    return "\n".join(lines)


def _value(row: Row) -> str:
    if row.value == AS_FOUND:
        value = "left as it is, and recorded"
    elif row.value is None:
        value = "must not be set"
    else:
        value = f"`{row.value}`"
    value += "" if row.required else " (if it can be)"
    return f"{value} on {', '.join(row.machines)}" if row.machines else value
