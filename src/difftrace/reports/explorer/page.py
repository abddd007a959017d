"""The page: a frame, the checks as data, one style and one script, and a policy that admits nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

from difftrace.core.text import printable
from difftrace.reports.explorer.details import Packed, packed
from difftrace.reports.explorer.entry import Entry
from difftrace.reports.explorer.packing import inert
from difftrace.reports.explorer.shared import Shared

MOST_BYTES: Final = 5_000_000
"""What a page may have, so that it can be mailed and opens at once."""

# Pages of every version have it, so that one may take the place of another and of nothing else.
_GENERATOR: Final = '<meta name="generator" content="DiffTrace">'
_HEAD_BYTES: Final = 1024

# One scope for all of them, in this order.
_SCRIPTS: Final = ("unpack", "scales", "elements", "list", "map", "words", "decisions", "panels", "view", "main")


def explorer_page(
    title: str, facts: Sequence[tuple[str, str]], entries: Iterable[Entry], *, most: int = MOST_BYTES
) -> str:
    """Return the page as text, to be written as UTF-8.

    Args:
        title: what the page is called.
        facts: pairs of a label and a text on the run as a whole.
        entries: its checks, in the order to list them; taken one at a time.
        most: bytes of the page. Past it the decisions of checks are left out, first of those that did not fail, and the
            page says so.
    """
    style = _asset("explorer.css")
    script = f'"use strict";\n(() => {{\n{"".join(_asset(f"{name}.js") for name in _SCRIPTS)}}})();\n'
    shared = Shared()
    checks = [packed(entry, shared) for entry in entries]
    tables = shared.pack()

    def page(packs: Sequence[str], left_out: int) -> str:
        told = [*facts, ("Left out", _left_out(left_out))] if left_out else facts
        listed = [{**check.summary, "pack": pack} for check, pack in zip(checks, packs, strict=True)]
        return Template(_asset("explorer.html")).substitute(
            generator=_GENERATOR,
            policy=escape(_policy(style, script)),
            title=escape(printable(title)),
            style=style,
            script=script,
            data=_embedded({**inert({"title": title, "facts": told}), "shared": tables, "checks": listed}),
        )

    frame = len(page([""] * len(checks), len(checks)).encode())
    packs = _fitting(checks, most - frame)
    return page(packs, sum(pack != check.pack for check, pack in zip(checks, packs, strict=True)))


def is_explorer_page(file: Path) -> bool:
    """Return whether the file holds such a page, by its head.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    return head.startswith(b"<!doctype html>") and _GENERATOR.encode() in head


def _fitting(checks: Sequence[Packed], room: int) -> list[str]:
    """Return a pack of each check, `room` bytes in all: brief ones where it has to be, from the end of the list."""
    packs = [check.pack for check in checks]
    over = sum(map(len, packs)) - room
    # Failed checks are what the page is for.
    for index in sorted(range(len(checks)), key=lambda index: (checks[index].summary["status"] == "failed", -index)):
        if over <= 0:
            break
        packs[index] = checks[index].brief
        over -= len(checks[index].pack) - len(packs[index])
    return packs


def _left_out(count: int) -> str:
    return f"the decisions of {count} check{'' if count == 1 else 's'}, to keep this page small"


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
