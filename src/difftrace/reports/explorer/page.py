"""The page: a frame, the checks as data, one style and one script, and a policy that admits nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Final

from difftrace.core.text import printable
from difftrace.reports.explorer.details import check_document
from difftrace.reports.explorer.entry import Entry
from difftrace.reports.explorer.packing import inert

# One scope for all of them, in this order.
_SCRIPTS: Final = ("unpack", "scales", "elements", "list", "map", "words", "decisions", "panels", "view", "main")


def explorer_page(title: str, facts: Sequence[tuple[str, str]], entries: Iterable[Entry]) -> str:
    """Return the page as text, to be written as UTF-8.

    Args:
        title: what the page is called.
        facts: pairs of a label and a text on the run as a whole.
        entries: its checks, in the order to list them; taken one at a time.
    """
    style = _asset("explorer.css")
    script = f'"use strict";\n(() => {{\n{"".join(_asset(f"{name}.js") for name in _SCRIPTS)}}})();\n'
    checks = [check_document(entry) for entry in entries]
    return Template(_asset("explorer.html")).substitute(
        policy=escape(_policy(style, script)),
        title=escape(printable(title)),
        style=style,
        script=script,
        data=_embedded({**inert({"title": title, "facts": facts}), "checks": checks}),
    )


def _policy(style: str, script: str) -> str:
    """Return a Content-Security-Policy that admits this style and this script, and no other resource or request."""
    return (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def _embedded(data: object) -> str:
    """Return JSON that cannot end the script element it stands in, nor open a comment there."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return (files("difftrace.reports.explorer") / "assets" / name).read_text(encoding="utf-8")
