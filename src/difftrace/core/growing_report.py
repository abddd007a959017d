"""A report that is written again and again while it grows: every entry is encoded once."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from difftrace.core.report_json import report_document
from difftrace.core.run_report import Report, SeenTest


class GrowingReport:
    """The tests and checks known so far; those of one test stand together, in the order of `put_test`."""

    def __init__(self) -> None:
        self._tests: dict[str, tuple[SeenTest, str]] = {}
        self._checks: dict[str, dict[str | None, str]] = {}
        self._named: dict[tuple[str, str | None], tuple[str, str | None]] = {}
        self._environments: dict[str, int] = {}

    def put_test(self, test: SeenTest) -> None:
        """Take in a test; one that is known is replaced."""
        known = self._tests.get(test.nodeid)
        if known is None or known[0] != test:
            self._tests[test.nodeid] = (test, json.dumps(vars(test)))

    def put_check(self, check: Mapping[str, Any], environment: Mapping[str, Any] | None) -> None:
        """Take in the entry of a check, and where it ran; one of the same test and name is replaced."""
        index = None
        if environment is not None:
            index = self._environments.setdefault(_text(environment), len(self._environments))
        nodeid, name = check["nodeid"], check["name"]
        self._checks.setdefault(nodeid, {})[name] = _text({**check, "environment": index})
        self._named[nodeid, name] = (check["status"], check["class"])

    def encoded(self, frame: Report) -> bytes:
        """Return the report as JSON, a line for each test and check: `frame`, which has none, with what is known."""
        tests = [text for _, text in self._tests.values()]
        order = [*self._tests, *(nodeid for nodeid in self._checks if nodeid not in self._tests)]
        checks = [text for nodeid in order for text in self._checks.get(nodeid, {}).values()]
        left_out = tuple(test for test, _ in self._tests.values() if test.outcome == "deselected")
        document = report_document(replace(frame, tests=left_out, environments=()))
        del document["tests"], document["checks"], document["environments"]
        document["counts"] = {
            "checks": len(checks),
            "status": dict(Counter(status for status, _ in self._named.values())),
            "class": dict(Counter(name for _, name in self._named.values() if name is not None)),
        }
        head = json.dumps(document)[:-1]
        lists = {"environments": self._environments, "tests": tests, "checks": checks}
        listed = (f',\n"{name}": [\n' + ",\n".join(texts) + "\n]" for name, texts in lists.items())
        body = "".join(listed)
        return f"{head}{body}\n}}\n".encode("ascii")


def _text(value: Mapping[str, Any]) -> str:
    """Return `value` as JSON that readers accept, whatever a test's own environment holds.

    What is not finite or no JSON at all becomes its text, and half a surrogate pair a question mark.
    """
    try:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        text = json.dumps(_plain(value), sort_keys=True, ensure_ascii=False)
    return json.dumps(json.loads(text.encode("utf-8", "replace"))) if not text.isascii() else text


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    finite = isinstance(value, float) and math.isfinite(value)
    return value if finite or value is None or isinstance(value, str | int) else str(value)
