"""The check that a baseline belongs to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TestId:
    """The check a baseline belongs to.

    Attributes:
        module: file name of the test module without its folder, "test_sum.py".
        id: "TestA::test_b[param]".
        name: the check's name where a test has several, else None.
    """

    __test__ = False  # pytest collects classes of this name

    module: str
    id: str
    name: str | None
