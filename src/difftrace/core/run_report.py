"""What one run of a test suite says of its checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from difftrace.core.checked import Checked

TestOutcome = Literal["passed", "failed", "error", "skipped", "deselected", "not run"]
_MOST_COVERS: Final = 3
TEST_OUTCOMES: Final[tuple[TestOutcome, ...]] = get_args(TestOutcome)


@dataclass(frozen=True)
class SeenTest:
    """A test that was collected, whether or not it has checks.

    Attributes:
        nodeid: the test as pytest names it.
        module: its file, seen from the root folder, with forward slashes.
        id: "Class::test[param]".
        outcome: what became of it; an expected failure counts as skipped.
    """

    nodeid: str
    module: str
    id: str
    outcome: TestOutcome


@dataclass(frozen=True)
class Selection:
    """Which tests were to be run.

    Attributes:
        covers: the folders and files that tests were collected from, seen from the root folder.
        narrowed_by: what kept tests below them from being collected at all ("--last-failed"); what it left out is not
            known.
        filtered_by: options that choose among collected tests ("-k"). Those left out are "deselected" tests.
    """

    covers: tuple[str, ...]
    narrowed_by: tuple[str, ...]
    filtered_by: tuple[str, ...]


@dataclass(frozen=True)
class RunSettings:
    """What one run was asked to do; see the options of the same names."""

    mode: str
    scope: str | None
    policy: str
    fail_on: tuple[str, ...]
    allow: tuple[str, ...]
    strategy: str
    profile: str | None
    platform_key: str | None


@dataclass(frozen=True)
class Report:
    """The report of a run, or of several that were merged.

    Attributes:
        incomplete_because: why something that was to run is missing; empty for a run that came to its end.
        rootdir: the root folder, seen from the report's own; None where that would name folders outside it.
        results: the results folder, likewise.
        runs: what was asked for; a merged report has several.
        selection: which tests were to run.
        environments: the fingerprints of where runs ran.
        tests: every collected test.
        checks: every check that was reached.
    """

    incomplete_because: tuple[str, ...]
    rootdir: str | None
    results: str | None
    runs: tuple[RunSettings, ...]
    selection: Selection
    environments: tuple[Mapping[str, Any], ...]
    tests: tuple[SeenTest, ...]
    checks: tuple[Checked, ...]

    @property
    def complete(self) -> bool:
        """Whether every selected test ran to its end."""
        return not self.incomplete_because

    @property
    def deselected(self) -> int:
        """How many tests were collected and left out."""
        return sum(test.outcome == "deselected" for test in self.tests)

    @property
    def partial_because(self) -> tuple[str, ...]:
        """Why tests of what the run covers were not selected; empty where all were."""
        selection, left_out = self.selection, self.deselected
        deselected = (f"{left_out} test{'' if left_out == 1 else 's'} deselected",) if left_out else ()
        return (*selection.narrowed_by, *selection.filtered_by, *deselected)

    @property
    def full(self) -> bool:
        """Whether all that the run covers was selected and ran to its end."""
        return self.complete and not self.partial_because

    @property
    def extent(self) -> str:
        """What the run got to: "all tests", "all tests of a/test_b.py" or "not all tests of a"."""
        covers = self.selection.covers
        named = ", ".join(covers) if len(covers) <= _MOST_COVERS else f"{len(covers)} files and folders"
        of = "" if "." in covers else f" of {named}"
        return f"{'all' if self.full else 'not all'} tests{of}"

    @property
    def statuses(self) -> dict[str, int]:
        """How many checks have each status."""
        return dict(Counter(check.status for check in self.checks))

    @property
    def classes(self) -> dict[str, int]:
        """How many checks have each class of divergence."""
        return dict(Counter(check.divergence_class for check in self.checks if check.divergence_class is not None))
