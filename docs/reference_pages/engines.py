"""The engines whose loops can be recorded, from their adapters."""

from __future__ import annotations

import inspect
from importlib import import_module

from difftrace.capture import registry
from reference_pages.markdown import prose

_HEAD = """# Engines

`difftrace.record(model, engine="auto")` asks these adapters in turn; `engine="NAME"` names one. Those that other
distributions bring as entry points of the group `difftrace.adapters` are asked first:
[a loop of your own](../how-to/own-loop.md#teach-it-an-engine) shows how one is written.
"""


def page() -> str:
    """Return the page."""
    lines = [_HEAD]
    for name, home in registry._OWN.items():
        lines += [f"## {name}", ""]
        for paragraph in (inspect.getdoc(import_module(home)) or "").split("\n\n"):
            lines += [prose(paragraph), ""]
    return "\n".join(lines)
