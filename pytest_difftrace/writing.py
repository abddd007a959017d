"""The report of a run, written as it goes on, so that a process that dies leaves a file that is whole.

That says what was known when it was last written: after a test that failed, and else once a pause has passed since the
time before, `_PAUSE` or `_TIMES` as long as writing took. Where no test ends then, a thread writes it `_GRACE` later.
Only tests that ended in the last such while before the process died, and passed, can be missing from it.

Under pytest-xdist the controller writes it, from what reports bring along.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_difftrace import ranks
from pytest_difftrace.later import Later
from pytest_difftrace.manifest import Manifest, covers, filtered_by, narrowed_by, plain_of_worker, relation
from pytest_difftrace.on_github import project_of
from pytest_difftrace.pace import Pace
from pytest_difftrace.results import REPORT, forget_received, prepared
from pytest_difftrace.rooted import clean
from pytest_difftrace.session import Entry, Session

if TYPE_CHECKING:
    from difftrace.core.growing_report import GrowingReport
    from difftrace.core.report import Report, TestOutcome

_UNDER_WAY: Final = "the run has not ended"
_WORKER: Final = "a worker process crashed"
_ENDINGS: Final = {2: "the run was interrupted", 3: "pytest failed", 4: "pytest could not run"}
# Replacing the file takes as long as a small check, and the larger the report, the longer.
_PAUSE: Final = 0.05
_TIMES: Final = 40
# As long as tests end, none of them has to share the interpreter with the thread.
_GRACE: Final = 0.05
_PHASES: Final = ("setup", "call", "teardown")


class Writing:
    """Writes the report file that was asked for, and the one in the results folder."""

    def __init__(self, config: pytest.Config, session: Session, manifest: Manifest) -> None:
        self._config = config
        self._session = session
        self._manifest = manifest
        self._outcomes: dict[str, TestOutcome] = {}
        self._ended: set[str] = set()
        self._moved: set[str] = set()
        self._frames: dict[tuple[Path, Path | None], Report] = {}
        self._crashed = False
        self._growing: GrowingReport | None = None
        self._taken: dict[tuple[str, str | None], Entry] = {}
        self._pace = Pace(_PAUSE, _TIMES)
        self._lock = threading.Lock()
        self._later = Later(self._write_if_new, lambda: self._pace.left + _GRACE)
        self._urgent = False
        self._collected = 0
        self._results: Path | None = None

    def pytest_sessionstart(self) -> None:
        """Take the place of the report of another run before anything happens."""
        if self._session.settings.report is not None:
            from difftrace.core.errors import DiffTraceError

            try:
                self._write_growing((_UNDER_WAY,))
            except DiffTraceError as error:
                raise pytest.UsageError(f"--difftrace-report: {error}") from None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what became of a test in one phase."""
        # Only what a worker sent may have a group at its end.
        nodeid = plain_of_worker(report.nodeid) if hasattr(report, "node") else clean(report.nodeid)
        with self._lock:
            self._note(nodeid, report)

    def _note(self, nodeid: str, report: pytest.TestReport) -> None:
        self._moved.add(nodeid)
        if report.when == "setup":
            self._outcomes[nodeid] = "passed"
        if report.when not in _PHASES:  # xdist's word on a test that took its worker along
            self._crashed = True
        if report.failed:
            self._urgent = True
            self._outcomes[nodeid] = "failed" if report.when == "call" else "error"
        elif report.skipped:
            self._outcomes[nodeid] = "skipped"
        if report.when == "teardown":
            self._ended.add(nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self) -> None:
        """Write what is known of checks when a test has ended: at once where one failed, else when it is time to."""
        if len(self._session.entries) == len(self._taken):
            return
        if self._urgent or self._pace.due:
            self._write_if_new()
        else:
            self._later.ask()

    def _write_if_new(self) -> None:
        """Write what is known, if there are checks that the file does not have."""
        from difftrace.core.errors import DiffTraceError

        with self._lock:
            if len(self._session.entries) == len(self._taken):
                return
            self._urgent = False
            # Writing the whole report says what is wrong with it.
            with self._pace.timed(), contextlib.suppress(DiffTraceError):
                self._write_growing((_UNDER_WAY,))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, error: object) -> None:
        """Note a worker that did not come to its end."""
        self._crashed = self._crashed or error is not None

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the whole report."""
        self._later.end()
        if self._session.settings.report is None and not self._has_results:
            return
        from difftrace.core.errors import DiffTraceError

        try:
            self._write_whole(self._why_incomplete(session, int(exitstatus)))
        except DiffTraceError as error:
            self._session.problems.append(f"report not written: {error}")
            if session.exitstatus in (0, 5):
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @property
    def _has_results(self) -> bool:
        entries, settings = self._session.entries, self._session.settings
        asked = settings.explicit or settings.html is not None
        return bool(entries) and (asked or any(map(failed, tuple(entries.values()))))

    def _why_incomplete(self, session: pytest.Session, exitstatus: int) -> tuple[str, ...]:
        found = [_WORKER] if self._crashed else []
        if exitstatus in _ENDINGS:
            found.append(_ENDINGS[exitstatus])
        missing = len(self._manifest.selected.keys() - self._ended)
        if missing:
            stopped = session.shouldfail or session.shouldstop
            why = f" ({clean(stopped)})" if isinstance(stopped, str) else ""
            found.append(f"{missing} test{'' if missing == 1 else 's'} did not run to the end{why}")
        return tuple(found)

    def _targets(self) -> list[Path]:
        targets = [] if self._session.settings.report is None else [self._session.settings.report]
        if self._has_results:
            if self._results is None:
                self._results = prepared(self._config, self._session.settings)
            targets.append(self._results / REPORT)
        return targets

    def _write_growing(self, because: tuple[str, ...]) -> None:
        from difftrace.core.atomic import replace_quickly

        growing = self._grown()
        for path in self._targets():
            replace_quickly(path, growing.encoded(self._early_frame(path, because)))

    def _write_whole(self, because: tuple[str, ...]) -> None:
        from difftrace.core.atomic import write_atomically

        if not self._manifest.exact:
            self._manifest.named(self._config)
        growing, targets = self._grown(whole=True), self._targets()
        data = b""
        for path in targets:
            data = growing.encoded(self._frame(path, because))
            write_atomically(path, data)
        if self._results is not None:
            self._session.results = self._results
            received = [entry["check"]["received"] for entry in self._session.entries.values()]
            forget_received(self._results, {one["path"] for one in received if one is not None})
        self._session.report = data

    def _early_frame(self, path: Path, because: tuple[str, ...]) -> Report:
        """Return the frame of an unfinished report, made once: it takes a while, and little of it changes."""
        key = (path, self._results)
        if key not in self._frames:
            self._frames[key] = self._frame(path, because)
        return self._frames[key]

    def _grown(self, whole: bool = False) -> GrowingReport:
        """Return the tests and checks with what has become known since; `whole` looks at every test again."""
        from difftrace.core.growing_report import GrowingReport
        from difftrace.core.report import SeenTest

        manifest = self._manifest
        if self._growing is None:
            self._growing = GrowingReport()
        collected = len(manifest.selected) + len(manifest.deselected)
        if whole or collected != self._collected:  # all of them, in the order of collection
            self._collected = collected
            moved: Iterable[str] = tuple(manifest.selected)
            left_out = tuple(manifest.deselected)
        else:
            moved, left_out = self._moved & manifest.selected.keys(), ()
        for nodeid in moved:
            outcome = self._outcomes.get(nodeid, "not run")
            ended = nodeid in self._ended or outcome == "error"
            self._growing.put_test(SeenTest(nodeid, *manifest.place(nodeid), outcome if ended else "not run"))
        for nodeid in left_out:
            self._growing.put_test(SeenTest(nodeid, *manifest.place(nodeid), "deselected"))
        self._moved.clear()
        # In one step, since other hooks may add to them meanwhile.
        for key, entry in tuple(self._session.entries.items()):
            if self._taken.get(key) is not entry:
                self._taken[key] = entry
                self._growing.put_check(entry["check"], entry["environment"])
        return self._growing

    def _frame(self, path: Path, because: tuple[str, ...]) -> Report:
        from difftrace.core.report import Report, RunSettings, Selection

        config, settings = self._config, self._session.settings
        root = config.rootpath
        results = self._results
        return Report(
            incomplete_because=because,
            rootdir=relation(path.parent, root, project_of(root)),
            results=None if results is None else relation(path.parent, results, root),
            runs=(
                RunSettings(
                    settings.mode,
                    settings.scope if settings.mode == "record" else None,
                    settings.policy,
                    tuple(sorted(settings.fail_on)),
                    tuple(sorted(settings.allow)),
                    settings.strategy,
                    settings.profile,
                    settings.platform_key,
                ),
            ),
            selection=Selection(covers(config), narrowed_by(config, self._manifest.uncollected), filtered_by(config)),
            environments=(),
            tests=(),
            checks=(),
        )


def failed(entry: Entry) -> bool:
    """Return whether a check failed, and was not merely left out."""
    from difftrace.core.checked import GOOD

    return entry["check"]["status"] not in (*GOOD, "skipped")


def writes(config: pytest.Config) -> bool:
    """Return whether this process writes reports: the one that runs the tests, or the controller of those that do.

    Of several ranks it is the first.
    """
    options: Any = config.option
    return not hasattr(config, "workerinput") and not getattr(options, "collectonly", False) and ranks.writes()
