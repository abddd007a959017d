"""Several ranks, each of which runs this session: tests go in step, runs are compared, one rank writes.

Loaded into every pytest run; the library is imported once torch.distributed is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_difftrace import foreign
from pytest_difftrace.options import Settings

if TYPE_CHECKING:
    from difftrace.core.test_id import TestId
    from difftrace.core.trajectory import Trajectory
    from difftrace.ranks import Ranks

__tracebackhide__ = True

_FIXTURES = frozenset({"difftrace", "llada"})


def launched() -> tuple[int, int] | None:
    """Return number and count of ranks, as torchrun and accelerate put them into the environment; None without."""
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except (KeyError, ValueError):
        return None
    return (rank, size) if size > 1 and 0 <= rank < size else None


def group() -> Ranks | None:
    """Return the ranks of torch.distributed's default group; None where there is none so far, or only one rank."""
    # Another package of our name is refused where a fixture or a mode asks for ours; elsewhere it is let alone.
    if "torch.distributed" not in sys.modules or foreign.problem() is not None:
        return None
    from difftrace.ranks import current

    return current()


def several() -> bool:
    """Return whether this is one of several ranks that are compared."""
    return group() is not None


def writes() -> bool:
    """Return whether this process writes baselines, reports and results: alone, or as rank 0."""
    ranks = group()
    if ranks is not None:
        return ranks.writes
    found = launched()
    return found is None or found[0] == 0


def agree(trajectories: Sequence[Trajectory], test: TestId) -> None:
    """Raise RankError unless every rank is at this check and holds the same decisions."""
    ranks = group()
    if ranks is not None:
        check = "the check" if test.name is None else f"the check {test.name!r}"
        ranks.agree(trajectories, f"{check} of {test.module}::{test.id}")


def on_any(answer: bool) -> bool:
    """Return whether any rank answers yes; every rank has to ask. RankError where one does not."""
    ranks = group()
    return answer if ranks is None else any(ranks.ask(answer))


def of_first(number: int) -> int:
    """Return what rank 0 calls this with; every rank has to ask. RankError where one does not."""
    ranks = group()
    return number if ranks is None else ranks.of_first(number)


def start_again(report: pytest.TestReport, *, wanted: bool, possible: bool) -> bool:
    """Return whether a recorded test runs a second time: on all ranks, or on none.

    It does where any rank wants it and all can. A report of a test that another rank keeps from being recorded fails.
    """
    ranks = group()
    if ranks is None:
        return wanted and possible
    from difftrace.core.errors import RankError

    problem = _rest(ranks)
    try:
        # Asked in any case: the others wait for the answer.
        can = ranks.ask(possible and problem is None)
        wants = any(ranks.ask(wanted))
    except RankError as error:
        problem = problem or str(error)
    if problem is not None:
        _fail(report, f"difftrace: {problem}")
        return False
    if wanted and possible and not all(can):
        from difftrace.ranks.wording import named

        others = named([rank for rank, one in enumerate(can) if not one])
        _fail(report, f"difftrace: not recorded: the test did not pass on {others}")
    return wants and all(can)


def _fail(report: pytest.TestReport, text: str) -> None:
    if report.failed:
        report.sections.append(("difftrace", text))
    else:
        report.outcome, report.longrepr = "failed", text


def _rest(ranks: Ranks) -> str | None:
    """Wait for the other ranks; return what one of them did that this one did not, or None."""
    from difftrace.core.errors import RankError

    try:
        ranks.rest()
    except RankError as error:
        return str(error)
    return None


class Lockstep:
    """Hooks of every session; where there is one rank they do nothing."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._used = False
        self._compared = False
        self._problem: str | None = None

    def pytest_report_header(self) -> list[str]:
        """State which rank this is, where a mode is stated."""
        ranks = group()
        place = launched() if ranks is None else (ranks.rank, ranks.size)
        if not self._settings.explicit or place is None:
            return []
        rank, size = place
        writer = "this one writes" if rank == 0 else "rank 0 writes"
        when = "" if ranks is not None else " once torch.distributed is initialised"
        return [f"difftrace: rank {rank} of {size} ranks: {writer}; runs are compared across ranks{when}"]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Before fixtures are torn down, wait for the other ranks to end the test; fail if one did more than this."""
        used = not _FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))
        ranks = group() if used else None
        self._used = self._used or used
        self._compared = self._compared or ranks is not None
        # Where the connection is lost each run and check has said so.
        problem = None if ranks is None or ranks.lost else _rest(ranks)
        result = yield
        if problem is not None:
            pytest.fail(f"difftrace: {problem}", pytrace=False)
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Tell ranks that still run tests that this one will not come to any more."""
        ranks = group()
        ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
        if ranks is None or not ranks.met or ranks.lost or not ended:
            return
        from difftrace.core.errors import RankError

        try:
            ranks.leave()
        except RankError as error:
            self._problem = str(error)
            if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say that ranks were launched and never compared, or that they did not end together."""
        if self._problem is not None:
            terminalreporter.write_line(f"difftrace: {self._problem}", red=True)
        found = launched()
        if found is not None and self._used and not self._compared:
            terminalreporter.write_line(
                f"difftrace: none of the {found[1]} ranks was compared with another: the tests did not initialise"
                " torch.distributed (init_process_group in a conftest file)",
                yellow=True,
            )
