"""The errors that the library raises on purpose."""

from __future__ import annotations

import inspect

from difftrace.core import errors
from reference_pages.markdown import prose

_HEAD = """# Errors

Every error raised on purpose is a `difftrace.DiffTraceError`; all of them are in `difftrace.core.errors`. The message
says what is wrong, where, and what to do. The commands print it in one line and exit with 2.
"""


def page() -> str:
    """Return the page."""
    lines = [_HEAD]
    for name, found in vars(errors).items():
        if inspect.isclass(found) and found.__module__ == errors.__name__:
            bases = " and ".join(f"`{base.__name__}`" for base in found.__bases__)
            lines.append(f"- `{name}` (from {bases}): {prose(inspect.getdoc(found) or '')}")
    return "\n".join([*lines, ""])
