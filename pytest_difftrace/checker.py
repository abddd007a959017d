"""The `difftrace` fixture: compares what a test observed with its baseline, or hands it to the recording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import pytest

from difftrace.core.deferred import DeferredRun
from pytest_difftrace import messages, ranks
from pytest_difftrace.checks import Check, judge, judge_again, needs_repeating, needs_writing, observe
from pytest_difftrace.forcing import judge_deferred
from pytest_difftrace.options import Settings
from pytest_difftrace.passes import different_pass
from pytest_difftrace.platforms import recorded_elsewhere
from pytest_difftrace.repetition import REPETITION, why_not_repeated
from pytest_difftrace.session import LOADED, Outcome, notes
from pytest_difftrace.strategies import basis

if TYPE_CHECKING:
    from difftrace.capture import Recorder
    from difftrace.core.run import HoldsRun, Run
    from difftrace.core.trajectory import Trajectory

__tracebackhide__ = True

_OUTCOMES: Final[dict[str, Outcome]] = {
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
        if self._settings.mode == "off":
            notes(self._item).outcomes.append("skipped")
            return
        observation = observe(self._item, run, name, self._settings.platform_key)
        if not isinstance(run, DeferredRun):
            ranks.agree([record.trajectory for record in observation.run.sequences])
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
            check = judge_deferred(run, observation, self._settings)
        else:
            check = judge(observation, self._settings)
        if self._settings.mode == "record":
            writes = needs_writing(check, self._settings)
            if repetition is not None and (writes or check.verdict == "passed"):
                repetition.first[name] = check
                if writes:
                    repetition.pending.add(name)
                return
            if writes:
                self._fail(
                    "not recorded (cannot be repeated)",
                    messages.cannot_be_repeated(observation.line, *why_not_repeated(self._item)),
                )
        self._conclude(check)

    def _conclude(self, check: Check) -> None:
        # The model of several ranks may run on all of them or on none.
        if ranks.on_any(needs_repeating(check, self._settings)):
            check = judge_again(check, self._settings)
        outcome = _OUTCOMES[check.verdict]
        if check.verdict != "passed":
            self._fail(outcome, self._failure(check))
        noted = notes(self._item)
        if self._settings.mode == "record":
            noted.outcomes.append("unchanged")
            return
        different = different_pass(check, self._item.nodeid, self._settings)
        if different is not None:
            noted.passes.append(different)
        noted.outcomes.append("allowed" if different is not None and different.allowed_by else outcome)
        if check.forced is not None and check.forced.same:
            noted.scored.append(basis(check.forced))
        elsewhere = recorded_elsewhere(check)
        if elsewhere is not None:
            noted.elsewhere.append(elsewhere)

    def _failure(self, check: Check) -> str:
        text = messages.failure(check, self._settings, self._item.config)
        if check.verdict != "diverged" or not self._settings.bisect:
            return text
        if ranks.several():  # each may fail by itself, and their model may run on all of them only
            return f"{text}\n\nno bisection across ranks: run the test with --difftrace-bisect on one"
        from pytest_difftrace.bisecting import bisection

        return "\n".join([text, "", *bisection(check, self._item)])

    def _fail(self, outcome: Outcome, text: str) -> None:
        notes(self._item).outcomes.append(outcome)
        pytest.fail(text, pytrace=False)
