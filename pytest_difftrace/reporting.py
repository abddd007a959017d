"""What is said about the checks: the header, what travels with each report, and the lines at the end."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import pytest

from pytest_difftrace import platforms
from pytest_difftrace.colour import colour_failures
from pytest_difftrace.options import Settings
from pytest_difftrace.platforms import Elsewhere
from pytest_difftrace.session import NOTES, SESSION, Outcome, Session

FOLDER: Final = "__difftrace__"
_PREFIX: Final = "difftrace: "

# Attribute of a report with what xdist carries to the controller.
_NOTED: Final = "difftrace"

# The order in which outcomes are listed; those after the first four make the run fail.
_GOOD: Final = ("unchanged", "new", "changed", "verified")


def header(settings: Settings, hash_seed_problem: str | None) -> list[str]:
    """Return the header's lines for a mode that a flag asked for."""
    mode = f"{settings.mode} ({settings.scope})" if settings.mode == "record" else settings.mode
    platform = ", one per platform" if settings.per_platform else ""
    profile = f", profile {settings.profile}" if settings.profile is not None else ""
    lines = [
        f"{_PREFIX}mode {mode}, policy {settings.policy}{profile}, baselines in {FOLDER} beside each test{platform}"
    ]
    if hash_seed_problem is not None:
        lines.append(f"{_PREFIX}hash seed not in force: {hash_seed_problem}")
    return lines


def annotate(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    """Put on `report` what the item noted in this phase, as plain JSON, so that xdist carries it to the controller."""
    noted = item.stash.get(NOTES, None)
    if noted is not None and (noted.outcomes or noted.models):
        worker = getattr(item.config, "workerinput", {}).get("workerid", "")
        elsewhere = [list(one) for one in noted.elsewhere]
        attached = {"outcomes": noted.outcomes, "models": noted.models, "worker": worker, "elsewhere": elsewhere}
        setattr(report, _NOTED, attached)
        del item.stash[NOTES]
    if call.excinfo is None or not call.excinfo.errisinstance(pytest.fail.Exception):
        return
    # The list of failed tests and JUnit's message show this; forty lines do not belong there.
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None and _PREFIX in crash.message:
        crash.message = crash.message.partition("\n")[0]


def attach(report: pytest.TestReport, outcomes: list[Outcome]) -> None:
    """Put outcomes on a report that is already made."""
    if outcomes:
        noted = {"outcomes": [], **getattr(report, _NOTED, {})}
        setattr(report, _NOTED, {**noted, "outcomes": [*noted["outcomes"], *outcomes]})


class Tally:
    """Counts what reports bring along and says so at the end; under xdist only the controller has a terminal."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one report."""
        noted: dict[str, Any] = getattr(report, _NOTED, {})
        self._session.outcomes.update(noted.get("outcomes", ()))
        for model in noted.get("models", ()):
            self._session.workers.setdefault(model, set()).add(noted["worker"])
        self._session.elsewhere.update(Elsewhere(*one) for one in noted.get("elsewhere", ()))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Colour the failures, which pytest prints after this."""
        terminalreporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if terminalreporter is not None:
            colour_failures(terminalreporter)

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        """Print the counts, and models that `--dist loadgroup` did not keep on one worker."""
        session = config.stash[SESSION]
        counts = session.outcomes
        if counts and (session.settings.explicit or counts["skipped"]):
            good = all(outcome in _GOOD for outcome in counts)
            terminalreporter.write_line(summary(counts, session.settings), green=good, red=not good)
        if session.settings.explicit:
            for one, count in sorted(session.elsewhere.items()):
                terminalreporter.write_line(platforms.summary(one, count))
        if getattr(config.option, "dist", None) == "loadgroup":
            for line in scattered(session):
                terminalreporter.write_line(line, yellow=True)


def summary(counts: Counter[str], settings: Settings) -> str:
    """Return the line of counts: "difftrace: 3 unchanged, 1 new, 1 changed"."""
    if settings.mode == "off":
        skipped = counts["skipped"]
        return f"{_PREFIX}{skipped} check{'' if skipped == 1 else 's'} skipped (difftrace_mode = off)"
    first = [outcome for outcome in _GOOD if counts[outcome]]
    rest = sorted(outcome for outcome in counts if outcome not in _GOOD)
    return _PREFIX + ", ".join(f"{counts[outcome]} {outcome}" for outcome in [*first, *rest])


def scattered(session: Session) -> list[str]:
    """Return a line for each model that several workers loaded although grouping was asked for."""
    return [
        f"{_PREFIX}{model} was loaded by {len(workers)} workers: --dist loadgroup did not keep its tests together"
        " here; use --dist loadfile"
        for model, workers in sorted(session.workers.items())
        if len(workers) > 1
    ]
