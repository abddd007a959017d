"""The page that `--difftrace-html` asks for: written once the report of the run is final."""

from __future__ import annotations

import pytest

from pytest_difftrace.session import Session


class Exploring:
    """Writes the page, in the process that writes the report."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # The report, which it shows, is written by a hook of the same name.
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the page; of a run without checks it says so."""
        from difftrace.core.atomic import write_atomically
        from difftrace.core.errors import DiffTraceError
        from difftrace.core.report import parse
        from difftrace.reports.explorer import explorer_page
        from difftrace.reports.explorer.sources import report_entries, report_facts

        target, written = self._session.settings.html, self._session.report
        assert target is not None
        report = None if written is None else parse(written, "the report")
        facts = [] if report is None else list(report_facts(report))
        entries = () if report is None else report_entries(report, session.config.rootpath, self._session.results)
        try:
            write_atomically(target, explorer_page("DiffTrace report", facts, entries).encode())
        except DiffTraceError as error:
            self._session.problems.append(f"page not written: {error}")
            if session.exitstatus in (0, 5):
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
