"""What pytest itself says of why it ran no tests: on its standard error, or for files in its JUnit file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from difftrace.core.text import printable

INTERRUPTED: Final = 2
REFUSED: Final = 4

_LONGEST: Final = 500
_ERRORS: Final = (re.compile(r"ERROR: (?!usage: )(.+)"), re.compile(r"\S.*?: error: (.+)"))
_CONFTEST: Final = re.compile(r"ImportError while loading conftest '(.+)'\.?")
_CAUSE: Final = re.compile(r"E +(\S.*)")


def explanation(status: int, said: str, junit: Path) -> str | None:
    """Return why pytest ended with `status` and ran no tests, None where it does not say.

    `said` is what it wrote to standard error, or the end of that.
    """
    if status == REFUSED:
        return _refusal(said)
    return _not_imported(junit) if status == INTERRUPTED else None


def failed_tests(junit: Path) -> list[str]:
    """Return the tests that failed, in or around their call, by the JUnit file; none where it cannot be read."""
    return [
        "::".join(filter(None, (case.get("classname"), case.get("name"))))
        for case in _cases(junit)
        if case.find("failure") is not None or case.find("error") is not None
    ]


def _refusal(said: str) -> str | None:
    lines = [line.rstrip() for line in said.splitlines()]
    conftests = [found[1] for line in lines if (found := _CONFTEST.fullmatch(line))]
    if conftests:
        causes = [found[1] for line in lines if (found := _CAUSE.fullmatch(line))]
        return _shortened(f"{conftests[0]} could not be imported: {causes[-1] if causes else 'see the log'}")
    errors = [found[1] for line in lines for pattern in _ERRORS if (found := pattern.fullmatch(line))]
    return _shortened(f"pytest refused its command line or settings: {errors[-1]}") if errors else None


def _not_imported(junit: Path) -> str | None:
    """Name the test files that could not be imported; the JUnit file has their names with dots for slashes."""
    names = []
    for case in _cases(junit):
        error = case.find("error")
        if error is not None and error.get("message") == "collection failure":
            names.append(case.get("name") or "")
    if not names:
        return None
    which = f"the test file {names[0]}" if len(names) == 1 else f"{len(names)} test files, such as {names[0]},"
    return _shortened(f"{which} could not be imported; see the log")


def _cases(junit: Path) -> list[ElementTree.Element]:
    try:
        return list(ElementTree.parse(junit).iter("testcase"))  # noqa: S314 - who writes it runs code here anyway
    except (OSError, ElementTree.ParseError):
        return []


def _shortened(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"
