"""What is said about the checks: the header, what travels with each report, and the lines at the end."""

from __future__ import annotations

from typing import Any, Final

import pytest

from pytest_difftrace import next_steps, passes, platforms, strategies
from pytest_difftrace.colour import colour_failures
from pytest_difftrace.options import Settings
from pytest_difftrace.passes import Pass
from pytest_difftrace.platforms import Elsewhere
from pytest_difftrace.session import NOTES, SESSION, Entry, Session

FOLDER: Final = "__difftrace__"
_PREFIX: Final = "difftrace: "

# Attribute of a report with what xdist carries to the controller.
_NOTED: Final = "difftrace"

# The order in which outcomes are listed; those after them make the run fail. What was allowed is listed by its class.
_GOOD: Final = ("unchanged", "new", "changed", "verified", "allowed")

_REMARKS: Final = {
    "decisions alone": "{} compared by decisions alone: whether the logits are the same cannot be told, as one of the"
    " sides came without evidence",
    "logits not reproducible": "{} recorded of a test whose two runs decide alike by other logits: here too, verifying"
    " will find drift",
    "budget dropped": "{} recorded without the budget of the one before, which was calibrated to another dtype, model"
    " or guidance: calibrate anew",
    "probes dropped": "{} recorded without the probes of the one before, which are of another run: make them anew with"
    " difftrace layers --into-baseline",
}


def header(settings: Settings, hash_seed_problem: str | None) -> list[str]:
    """Return the header's lines for a mode that a flag asked for."""
    mode = f"{settings.mode} ({settings.scope})" if settings.mode == "record" else settings.mode
    policy = f"{settings.policy}{_exceptions(settings)}"
    platform = ", one per platform" if settings.per_platform else ""
    profile = f", profile {settings.profile}" if settings.profile is not None else ""
    strategy = strategies.header(settings)
    lines = [
        f"{_PREFIX}mode {mode}, policy {policy}{strategy}{profile}, baselines in {FOLDER} beside each test{platform}"
    ]
    if hash_seed_problem is not None:
        lines.append(f"{_PREFIX}hash seed not in force: {hash_seed_problem}")
    return lines


def _exceptions(settings: Settings) -> str:
    named = (("fail on", settings.fail_on), ("allow", settings.allow))
    text = "; ".join(f"{what} {', '.join(sorted(names))}" for what, names in named if names)
    return f" ({text})" if text else ""


def annotate(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    """Put on `report` what the item noted in this phase, as plain JSON, so that xdist carries it to the controller."""
    noted = item.stash.get(NOTES, None)
    if noted is not None and (noted.entries or noted.models):
        attached = {
            "entries": noted.entries,
            "problems": noted.problems,
            "models": noted.models,
            "worker": getattr(item.config, "workerinput", {}).get("workerid", ""),
            "elsewhere": [list(one) for one in noted.elsewhere],
            "scored": noted.scored,
            "passes": [list(one) for one in noted.passes],
            "remarks": noted.remarks,
        }
        setattr(report, _NOTED, attached)
        del item.stash[NOTES]
    if call.excinfo is None or not call.excinfo.errisinstance(pytest.fail.Exception):
        return
    # The list of failed tests and JUnit's message show this; forty lines do not belong there.
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None and _PREFIX in crash.message:
        crash.message = crash.message.partition("\n")[0]


def attach(report: pytest.TestReport, entries: list[Entry]) -> None:
    """Put what became of checks on a report that is already made."""
    if entries:
        noted = {"entries": [], **getattr(report, _NOTED, {})}
        setattr(report, _NOTED, {**noted, "entries": [*noted["entries"], *entries]})


class Tally:
    """Counts what reports bring along and says so at the end; under xdist only the controller has a terminal."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one report."""
        noted: dict[str, Any] = getattr(report, _NOTED, {})
        for entry in noted.get("entries", ()):
            # One that is run again (pytest-rerunfailures) counts once, as it ended.
            self._session.entries[entry["check"]["nodeid"], entry["check"]["name"]] = entry
        self._session.problems.extend(one for one in noted.get("problems", ()) if one not in self._session.problems)
        for model in noted.get("models", ()):
            self._session.workers.setdefault(model, set()).add(noted["worker"])
        self._session.elsewhere.update(Elsewhere(*one) for one in noted.get("elsewhere", ()))
        self._session.scored.update(noted.get("scored", ()))
        self._session.passes.extend(Pass(*one) for one in noted.get("passes", ()))
        self._session.remarks.update(noted.get("remarks", ()))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Colour the failures, which pytest prints after this."""
        terminalreporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if terminalreporter is not None:
            colour_failures(terminalreporter)

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        """Print the counts, what passed although it differs, and models that `--dist loadgroup` did not keep on one
        worker."""
        session = config.stash[SESSION]
        counts = session.outcomes
        below = passes.lines(session.passes, config.get_verbosity() > 0)
        if (
            config.get_verbosity() > -2
            and counts
            and (session.settings.explicit or counts["skipped"] or counts["allowed"] or below)
        ):
            good = all(outcome in _GOOD for outcome in counts)
            terminalreporter.write_line(summary(session), green=good, red=not good)
        for line in (*below, *_remarks(session)):
            terminalreporter.write_line(line, yellow=line.startswith(_PREFIX))
        if session.settings.explicit:
            for rests_on, count in sorted(session.scored.items()):
                terminalreporter.write_line(f"{_PREFIX}{count} verified by scoring golden canvases{rests_on}")
            for one, count in sorted(session.elsewhere.items()):
                terminalreporter.write_line(platforms.summary(one, count))
        for line in next_steps.step_lines(config):
            terminalreporter.write_line(line, bold=True)
        for problem in session.problems:
            terminalreporter.write_line(f"{_PREFIX}{problem}", red=True)
        if getattr(config.option, "dist", None) == "loadgroup":
            for line in scattered(session):
                terminalreporter.write_line(line, yellow=True)


def summary(session: Session) -> str:
    """Return the line of counts: "difftrace: 3 unchanged, 1 new, 1 changed"."""
    counts = session.outcomes
    if session.settings.mode == "off":
        skipped = counts["skipped"]
        return f"{_PREFIX}{skipped} check{'' if skipped == 1 else 's'} skipped (difftrace_mode = off)"
    known = [outcome for outcome in _GOOD if counts[outcome] and outcome != "allowed"]
    failed = sorted(outcome for outcome in counts if outcome not in _GOOD)
    drift = {"verified": passes.drifted(session.passes)}
    good, bad = ([f"{counts[one]} {one}{drift.get(one, '')}" for one in group] for group in (known, failed))
    return _PREFIX + ", ".join([*good, *passes.allowed(session.passes), *bad])


def _remarks(session: Session) -> list[str]:
    return [
        _PREFIX + _REMARKS[remark].format("1 baseline was" if count == 1 else f"{count} baselines were")
        for remark, count in sorted(session.remarks.items())
        # A loop of one's own may have no evidence to give, which is no news in every run.
        if remark != "decisions alone" or session.settings.explicit
    ]


def scattered(session: Session) -> list[str]:
    """Return a line for each model that several workers loaded although grouping was asked for."""
    return [
        f"{_PREFIX}{model} was loaded by {len(workers)} workers: --dist loadgroup did not keep its tests together"
        " here; use --dist loadfile"
        for model, workers in sorted(session.workers.items())
        if len(workers) > 1
    ]
