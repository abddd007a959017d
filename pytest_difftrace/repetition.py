"""A test that recording runs twice: what it observed in each run, and which tests that is possible for."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import pytest

from pytest_difftrace.checks import Check, Observation


@dataclass
class Repetition:
    """One test's two runs.

    Attributes:
        attempt: the run that is under way, 1 or 2.
        open: whether the test function has not ended yet.
        first: checks of the first run by name.
        seconds: how long each took there, by name.
        pending: names of those whose baseline is to be written.
        second: observations of the second run by name.
        obstacle: why nothing may be written although both runs passed.
        concluded: whether the second run got as far as the decision to write or not.
    """

    attempt: int = 1
    open: bool = True
    first: dict[str | None, Check] = field(default_factory=dict)
    seconds: dict[str | None, float] = field(default_factory=dict)
    pending: set[str | None] = field(default_factory=set)
    second: dict[str | None, Observation] = field(default_factory=dict)
    obstacle: str | None = None
    concluded: bool = False


REPETITION = pytest.StashKey[Repetition]()


def can_be_repeated(item: pytest.Item) -> bool:
    """Return whether recording can run `item` twice with fresh function fixtures."""
    return (
        isinstance(item, pytest.Function)
        and hasattr(item, "_initrequest")
        and not _is_unittest(item)
        and "difftrace" in item.fixturenames
    )


def why_not_repeated(item: pytest.Item) -> tuple[str, str]:
    """Return why a check in `item` cannot be recorded, and what to do."""
    if not isinstance(item, pytest.Function) or _is_unittest(item):
        return "only a plain test function can be run twice", "Move the check to a test function or method."
    if "difftrace" not in item.fixturenames:
        return (
            "the test gets the difftrace fixture in passing, so it was not run twice",
            "Name difftrace among the test's arguments.",
        )
    return (
        "the check came after the test function had ended, in the teardown of a fixture",
        "Move the check to the test function.",
    )


def _is_unittest(item: pytest.Function) -> bool:
    unittest = sys.modules.get("unittest")
    return unittest is not None and item.cls is not None and issubclass(item.cls, unittest.TestCase)
