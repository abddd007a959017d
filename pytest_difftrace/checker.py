"""The `difftrace` fixture: compares what a test observed with its baseline, or hands it to the recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from difftrace.core.checked import ReceivedFile, Status
from difftrace.core.deferred import DeferredRun
from difftrace.core.text import printable
from pytest_difftrace import messages, ranks
from pytest_difftrace.checks import (
    Check,
    Observation,
    by_decisions_alone,
    caller,
    judge,
    judge_again,
    made,
    needs_repeating,
    needs_writing,
    observe,
    to_record,
)
from pytest_difftrace.entries import Untold, entry_of
from pytest_difftrace.forcing import judge_deferred
from pytest_difftrace.junit import note_properties
from pytest_difftrace.locations import test_id
from pytest_difftrace.options import Settings
from pytest_difftrace.passes import different_pass
from pytest_difftrace.platforms import recorded_elsewhere
from pytest_difftrace.repetition import REPETITION, why_not_repeated
from pytest_difftrace.results import write_received
from pytest_difftrace.session import LOADED, notes
from pytest_difftrace.stopwatch import Stopwatch
from pytest_difftrace.strategies import basis

if TYPE_CHECKING:
    from difftrace.capture import Recorder
    from difftrace.core.run import HoldsRun, Run
    from difftrace.core.trajectory import Trajectory

__tracebackhide__ = True

_STATUSES: Final[dict[str, Status]] = {
    "passed": "verified",
    "diverged": "diverged",
    "missing": "without baseline",
    "unreadable": "unreadable",
    "newer": "unreadable",
    "foreign": "refused",
}


class Checker:
    """What a test gets as `difftrace`."""

    def __init__(self, item: pytest.Item, settings: Settings) -> None:
        self._item = item
        self._settings = settings
        self._names: set[str | None] = set()

    def record(self, model: Any, **options: Any) -> Recorder:
        """Record the loop that calls `model` inside the context: `difftrace.record`, with all its options.

            with difftrace.record(model) as rec:
                out = generate(model, prompt)
            difftrace.check(rec.run(out))

        The model of the `llada` fixture is recorded under the name that it was loaded by.

        Raises:
            CaptureError: as `difftrace.record`.
        """
        from difftrace.capture import record

        loaded = self._item.stash.get(LOADED, None)
        subject = loaded if loaded is not None and model is loaded.model else model
        return record(subject, **{"across_ranks": True, **options})

    def check(
        self, run: Run | DeferredRun | HoldsRun | Trajectory | Sequence[Trajectory], name: str | None = None
    ) -> None:
        """Hold `run` against the baseline of this test; a test with several checks gives each a `name`.

        Fails the test where they differ or there is no baseline; `pytest --difftrace-record` records one.

        Raises:
            TypeError: `run` is something else.
            ValueError: `name` was given before in this test, or holds other than ASCII letters, digits, `_` and `-`.
            RankError: this is one of several ranks, and another one decided otherwise or makes no such check.
        """
        watch, at = Stopwatch(), caller()
        if self._settings.mode == "off":
            self._note(Untold(test_id(self._item, None), name, self._item.path, at), "skipped", watch)
            return
        try:
            self._check(run, name, at, watch)
        except Exception as error:
            untold = Untold(test_id(self._item, None), name, self._item.path, at)
            self._note(untold, "error", watch, text=printable(f"{type(error).__name__}: {error}"))
            raise

    def _check(
        self,
        run: Run | DeferredRun | HoldsRun | Trajectory | Sequence[Trajectory],
        name: str | None,
        at: tuple[Path, int],
        watch: Stopwatch,
    ) -> None:
        observation = observe(self._item, run, name, self._settings.platform_key, at)
        if not isinstance(run, DeferredRun):
            ranks.agree([record.trajectory for record in observation.run.sequences], observation.test)
        if name in self._names:
            raise ValueError(
                "a second difftrace.check in one test needs a name: difftrace.check(run, name=…)"
                if name is None
                else f"difftrace.check(name={name!r}) was called before in this test; names are unique in a test"
            )
        self._names.add(name)
        repetition = self._item.stash.get(REPETITION, None)
        if repetition is not None and not repetition.open:
            repetition = None
        if repetition is not None and repetition.attempt == 2:
            repetition.second[name] = observation
            return
        if isinstance(run, DeferredRun):
            check = judge_deferred(run, observation, self._settings, watch)
        else:
            check = judge(observation, self._settings)
        if self._settings.mode == "record":
            writes = needs_writing(check, self._settings)
            if repetition is not None and (writes or check.verdict == "passed"):
                repetition.first[name] = check
                repetition.seconds[name] = watch.seconds
                if writes:
                    repetition.pending.add(name)
                return
            if writes:
                text = messages.cannot_be_repeated(observation.line, *why_not_repeated(self._item))
                self._fail("not recorded (cannot be repeated)", check, text, watch)
        self._conclude(check, run, watch)

    def _conclude(self, check: Check, run: object, watch: Stopwatch) -> None:
        # The model of several ranks may run on all of them or on none.
        if ranks.on_any(needs_repeating(check, self._settings)):
            with watch.paused():
                check = judge_again(check, self._settings)
        status = _STATUSES[check.verdict]
        if check.verdict != "passed":
            text = self._failure(check, watch)
            with watch.paused():
                received = self._received(check, run)
            self._fail(status, check, text, watch, received)
        if self._settings.mode == "record":
            self._note(check.observation, "unchanged", watch, check)
            return
        noted = notes(self._item)
        different = different_pass(check, self._item.nodeid, self._settings)
        if different is not None:
            noted.passes.append(different)
        self._note(
            check.observation, "allowed" if different is not None and different.allowed_by else status, watch, check
        )
        if check.forced is not None and check.forced.same:
            noted.scored.append(basis(check.forced))
        elif by_decisions_alone(check):
            noted.remarks.append("decisions alone")
        elsewhere = recorded_elsewhere(check)
        if elsewhere is not None:
            noted.elsewhere.append(elsewhere)

    def _failure(self, check: Check, watch: Stopwatch) -> str:
        text = messages.failure(check, self._settings, self._item.config)
        if check.verdict != "diverged" or not self._settings.bisect:
            return text
        if ranks.several():  # each may fail by itself, and their model may run on all of them only
            return f"{text}\n\nno bisection across ranks: run the test with --difftrace-bisect on one"
        from pytest_difftrace.bisecting import bisection

        with watch.paused():
            return "\n".join([text, "", *bisection(check, self._item)])

    def _received(self, check: Check, run: object) -> ReceivedFile | None:
        """Write the run of a failed check to the results folder; a deferred one is denoised for it, on every rank."""
        try:
            if isinstance(run, DeferredRun):
                check = replace(check, observation=made(check.observation, run.run, self._settings.platform_key))
            if not ranks.writes():
                return None
            # All logits of a run lie beside a baseline, not beside what is there to be looked at.
            received = replace(to_record(check), logits=None)
            return write_received(self._item.config, self._item.path, received, check.target.name)
        except Exception as error:
            # The check has failed already, and it is its own failure that is to be shown.
            told = f"received run of {self._item.nodeid} not written: {error or type(error).__name__}"
            notes(self._item).problems.append(printable(told))
            return None

    def _note(
        self,
        observation: Observation | Untold,
        status: Status,
        watch: Stopwatch,
        check: Check | None = None,
        text: str | None = None,
        received: ReceivedFile | None = None,
    ) -> None:
        entry = entry_of(
            self._item, observation, status, self._settings, watch.seconds, check=check, text=text, received=received
        )
        notes(self._item).entries.append(entry)
        note_properties(self._item, [entry])

    def _fail(
        self, status: Status, check: Check, text: str, watch: Stopwatch, received: ReceivedFile | None = None
    ) -> None:
        self._note(check.observation, status, watch, check, text, received)
        pytest.fail(text, pytrace=False)
