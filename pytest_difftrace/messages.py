"""The texts a failing check shows: what is wrong, where, and the command that helps."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

import pytest

from difftrace.core.classification import Classification
from difftrace.core.comparison import Divergence
from difftrace.core.recording import TestId
from difftrace.core.run_rules import non_finite_step
from difftrace.core.text import printable
from difftrace.reports.audit import audit_lines
from difftrace.reports.failure import divergence_text
from difftrace.reports.logits import logits_lines
from difftrace.reports.scored import divergent_steps_lines
from difftrace.reports.verdict import reason_lines
from pytest_difftrace.checks import Check, Observation, relative
from pytest_difftrace.options import Settings
from pytest_difftrace.platforms import explanation, recorded_elsewhere

# Most lines of an audit; all of it is in `rec.capture(output).audit`.
_AUDIT_LINES = 8

_NEEDS_NO_QUOTES = re.compile(r"[\w@%+=:,./-]+", re.ASCII)
_SAFE_IN_DOUBLE_QUOTES = re.compile(r"[^\"$`\\!%\x00-\x1f]+")


def record_command(observation: Observation, config: pytest.Config) -> str:
    """Return the command that records the test, to be run where this pytest was started."""
    return command_line([*record_words(config), f"{relative(observation.module, config)}::{observation.test.id}"])


def record_words(config: pytest.Config) -> list[str]:
    """Return "pytest --difftrace-record" with the options that the checks were judged by: only what fails is recorded
    anew.
    """
    words = ["pytest", "--difftrace-record"]
    for name in ("policy", "fail_on", "model", "profile", "platform_key"):
        given: str | list[str] | None = config.getoption(f"difftrace_{name}")
        value = ",".join(given) if isinstance(given, list) else given
        if value:
            words.append(f"--difftrace-{name.replace('_', '-')}={value}")
    return words


def command_line(words: Sequence[str]) -> str:
    """Return words as a shell takes them, and as a terminal may show them."""
    return printable(" ".join(map(_quoted, words)))


def failure(check: Check, settings: Settings, config: pytest.Config) -> str:
    """Return the text for a check that does not pass."""
    observation = check.observation
    source = printable(relative(check.source, config))
    where = [_line(observation), f"  baseline: {source}"]
    command = f"  {record_command(observation, config)}"
    if check.verdict == "missing":
        return _lines("no baseline", [_line(observation), f"  missing: {source}"], ["To record it:", command])
    if check.verdict == "unreadable":
        return _lines(printable(check.problem or ""), [_line(observation)], ["To record it anew:", command])
    if check.verdict == "newer":
        return _lines(printable(check.problem or ""), [_line(observation)], ["Update pytest-difftrace to check it."])
    assert check.golden is not None
    if check.verdict == "foreign":
        assert check.golden.test is not None
        return _other_test(observation, check.golden.test, where)
    elsewhere = recorded_elsewhere(check)
    if elsewhere is not None:
        where += explanation(elsewhere)
    assert check.classification is not None
    return divergence_text(
        check.golden,
        observation.run,
        check.divergence,
        subject=_subject(check, check.classification, settings),
        where=where,
        reasons=_reasons(check, check.classification, settings),
        advice=[*_audited(observation), *_advice(check, check.classification, command)],
    )


def _subject(check: Check, found: Classification, settings: Settings) -> str:
    name = "" if found.divergence_class is None else f"{found.divergence_class}: "
    outcome = found.outcome
    if check.divergence is not None and outcome is not None:
        if settings.policy == "text" and outcome.same_text is False:
            return f"{name}final text differs from its baseline; the runs part"
        if settings.policy == "tokens" and outcome.tokens:
            return f"{name}final tokens differ from the baseline's; the runs part"
    at = "" if check.divergence is not None or found.step is None else f" from step {found.step} on"
    return f"{name}run differs from its baseline{at}"


def _reasons(check: Check, found: Classification, settings: Settings) -> list[str]:
    """Return why the runs differ, and why that fails where it is not for the exact policy, which lets nothing pass.

    Nothing for bare trajectories, of which only their decisions are known.
    """
    assert check.judgement is not None
    assert check.golden is not None
    observed = check.observation.run
    bare = observed.model is None and all(record.evidence is None for record in observed.sequences)
    if bare and found.divergence_class is None:
        return []
    told = settings.policy != "exact" or found.divergence_class in settings.fail_on or bool(found.others)
    steps = [] if check.forced is None else divergent_steps_lines(check.forced)
    at = check.divergence or found
    logits = logits_lines(check.source, check.golden, check.observation.logits, at.step, at.sequence)
    return [*steps, *reason_lines(found, check.judgement.reason if told else None), *logits]


def _audited(observation: Observation) -> list[str]:
    """Return what the loop drew at random and where its selections were tied, if that was asked for."""
    if observation.audit is None:
        return []
    model = observation.run.model
    lines = audit_lines(observation.audit, vocabulary=None if model is None else model.vocab_size)
    more = [f"  and {len(lines) - _AUDIT_LINES} more lines"] if len(lines) > _AUDIT_LINES else []
    return ["What the loop drew and selected:", *(f"  {line}" for line in lines[:_AUDIT_LINES]), *more, ""]


def _advice(check: Check, found: Classification, command: str) -> list[str]:
    if non_finite_step(check.observation.run) is not None:
        return [
            "Recording is refused where the model returns NaN or infinite logits. --difftrace-bisect names the module",
            "that makes them.",
        ]
    if found.divergence_class == "RUN_TO_RUN":
        return [
            "Recording would not help: the next run is another one. --difftrace-bisect names the module it starts in."
        ]
    return ["If the new run is right, record it:", command]


def other_test(check: Check, owner: TestId, config: pytest.Config) -> str:
    """Return the text for a file that another test has written."""
    where = [_line(check.observation), f"  baseline: {printable(relative(check.target, config))}"]
    return _other_test(check.observation, owner, where)


def not_reproducible(
    first: Observation, second: Observation, divergence: Divergence | None, reasons: Sequence[str]
) -> str:
    """Return the text for a test whose two runs differ, in what `reasons` say if not in their decisions."""
    return divergence_text(
        first.run,
        second.run,
        divergence,
        subject="not recorded: two runs of this test differ",
        where=[_line(first)],
        reasons=reasons,
        advice=[
            *_audited(second),
            "A baseline that its own test does not reproduce would fail at random. Look for randomness without a",
            "seed, the clock, or state that one run leaves to the next, then record again.",
        ],
        labels=("run 1", "run 2"),
    )


def cannot_be_repeated(line: str, reason: str, advice: str) -> str:
    """Return the text for a test that recording cannot run twice."""
    return _lines(f"not recorded: {reason}", [f"  at {line}"], [advice])


def not_finite(observation: Observation, step: int) -> str:
    """Return the text for a run whose logits are not finite at `step`."""
    return _lines(
        f"not recorded: the model returned NaN or infinite logits, first at step {step}",
        [_line(observation)],
        [
            "What is chosen by such numbers is no golden run. A failing check with --difftrace-bisect names the module",
            "that makes the first of them.",
        ],
    )


def _other_test(observation: Observation, owner: TestId, where: Sequence[str]) -> str:
    return _lines(
        "the baseline belongs to another test",
        [*where, f"  this test: {_name(observation.test)}", f"  its test: {_name(owner)}"],
        ["If the test was renamed, delete the file and record again; else rename one of the two tests."],
    )


def _name(test: TestId) -> str:
    check = "" if test.name is None else f", check {test.name}"
    return printable(f"{test.module}::{test.id}{check}")


def _line(observation: Observation) -> str:
    return f"  at {printable(observation.line)}"


def _lines(subject: str, where: Sequence[str], advice: Sequence[str]) -> str:
    return "\n".join([f"difftrace: {subject}", *where, *(["", *advice] if advice else [])])


def _quoted(word: str) -> str:
    if _NEEDS_NO_QUOTES.fullmatch(word):
        return word
    # Double quotes where they are enough: cmd.exe knows no others.
    return f'"{word}"' if _SAFE_IN_DOUBLE_QUOTES.fullmatch(word) else shlex.quote(word)
