"""One check: a run, the baseline it belongs to, and what their comparison says."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from difftrace.core import policies, rerecording
from difftrace.core.audit import Audit
from difftrace.core.baseline import dump, load, parse
from difftrace.core.baseline_names import baseline_path
from difftrace.core.classification import Classification, classify, divergence_of
from difftrace.core.comparison import Divergence
from difftrace.core.deferred import DeferredRun
from difftrace.core.errors import FormatError, NewerFormatError
from difftrace.core.file_format import read_file
from difftrace.core.forced import ForcedVerdict
from difftrace.core.limits import MAX_BASELINE_BYTES
from difftrace.core.logits_reference import RecordedLogits
from difftrace.core.recording import Baseline, TestId
from difftrace.core.run import HoldsRun, Run
from difftrace.core.side_logits import lies_beside, open_beside
from difftrace.core.trajectory import Trajectory
from pytest_difftrace.locations import test_id
from pytest_difftrace.options import Settings
from pytest_difftrace.platforms import PLATFORM_KEY

# No frame of this module in the traceback of a wrong call: it is the caller's line that matters.
__tracebackhide__ = True

Verdict = Literal["passed", "diverged", "missing", "unreadable", "newer", "foreign"]


@dataclass(frozen=True)
class Observation:
    """A run as a test handed it over.

    Attributes:
        test: the check.
        run: what was observed, as the baseline it would be recorded as.
        module: file of the test.
        at: file and line of the check.
        line: the same as text, "tests/test_sum.py:7".
        repeat: runs the same again; None where that is not possible.
        logits: the file of all its logits; None where they were not recorded.
        audit: what its loop drew and selected; None where that was not asked for.
    """

    test: TestId
    run: Baseline
    module: Path
    at: tuple[Path, int]
    line: str
    repeat: Callable[[], Baseline] | None = None
    logits: RecordedLogits | None = None
    audit: Audit | None = None


@dataclass(frozen=True)
class Check:
    """An observation and what its baseline says of it.

    Attributes:
        observation: what was observed.
        verdict: the comparison's result. "passed" and "diverged" are the policy's judgement; "newer": written by a
            newer version; "foreign": the file is another test's.
        source: the file compared with; for "missing" the one that a recording writes.
        target: the file that a recording writes.
        golden: content of `source` where it could be read.
        divergence: the first differing decision of the sequence that the classification is about, else of any.
        classification: why the run differs, where the two could be compared.
        judgement: what the policy says of it.
        problem: the reader's one line for "unreadable" and "newer".
        shared: whether `source` is the file for all platforms, else the one for this platform.
        forced: what scoring the golden canvases found, where that was done.
        sha256: digest of the bytes of `source`, None where there is no such file.
    """

    observation: Observation
    verdict: Verdict
    source: Path
    target: Path
    golden: Baseline | None = None
    divergence: Divergence | None = None
    classification: Classification | None = None
    judgement: policies.Judgement | None = None
    problem: str | None = None
    shared: bool = True
    forced: ForcedVerdict | None = None
    sha256: str | None = None


def observe(
    item: pytest.Item, value: object, name: str | None, platform_key: str | None, at: tuple[Path, int]
) -> Observation:
    """Return what a test handed to `difftrace.check`; `platform_key` replaces what the run calls its platform.

    Of a deferred run, which is not made for it, that is what is declared of it: it holds no decisions yet.

    Raises:
        TypeError: `value` is no run.
        ValueError: `name` is no name.
    """
    test = test_id(item, name)
    run = value.declared if isinstance(value, DeferredRun) else _as_run(value)
    repeat = None if run.repeat is None else partial(_repeated, run.repeat, test, platform_key)
    line = f"{relative(at[0], item.config)}:{at[1]}"
    return Observation(test, _as_baseline(run, test, platform_key), item.path, at, line, repeat, run.logits, run.audit)


def made(observation: Observation, run: Run, platform_key: str | None) -> Observation:
    """Return `observation` of a deferred run with the run that was made of it."""
    return replace(observation, run=_as_baseline(run, observation.test, platform_key), logits=run.logits)


def judge(observation: Observation, settings: Settings) -> Check:
    """Compare `observation` with its baseline: that of this platform where there is one, else the shared one."""
    check = find(observation, settings)
    return check if check.verdict != "diverged" else compared(check, settings)


def find(observation: Observation, settings: Settings) -> Check:
    """Return the check of `observation` with its baseline; "diverged" until the two are compared."""
    module, test = observation.module, observation.test
    shared = baseline_path(module, test)
    own = baseline_path(module, test, _platform_key(observation.run))
    target = own if settings.per_platform or _exists(own) else shared
    source = next((path for path in (own, shared) if _exists(path)), None)
    if source is None:
        return Check(observation, "missing", target, target, shared=target == shared)
    found = Check(observation, "diverged", source, target, shared=source == shared)
    try:
        data, named = read_file(source, MAX_BASELINE_BYTES)
        found = replace(found, sha256=f"sha256:{hashlib.sha256(data).hexdigest()}")
        golden = parse(data, named)
        if golden.logits is not None:
            open_beside(source, golden.logits)
    except FormatError as error:
        verdict: Verdict = "newer" if isinstance(error, NewerFormatError) else "unreadable"
        return replace(found, verdict=verdict, problem=str(error))
    if golden.test is not None and golden.test != test:
        return replace(found, verdict="foreign", golden=golden)
    return replace(found, golden=golden)


def compared(check: Check, settings: Settings) -> Check:
    """Return `check`, whose baseline could be read, with what comparing the two runs says."""
    assert check.golden is not None
    return judged_as(check, classify(check.golden, check.observation.run), settings)


def needs_repeating(check: Check, settings: Settings) -> bool:
    """Return whether the run of `check` has to be repeated before its judgement stands."""
    found, judgement = check.classification, check.judgement
    if found is None or judgement is None:
        return False
    return policies.asks_for_repetition(found, judgement, settings.fail_on)


def judge_again(check: Check, settings: Settings) -> Check:
    """Return `check` after its run was repeated once, to tell whether it differs from itself.

    A run that cannot be repeated leaves `check` as it is, and so does one of a check that failed where repeating it
    fails.
    """
    if check.golden is None or check.observation.repeat is None:
        return check
    try:
        repeated = check.observation.repeat()
    except Exception:
        if check.verdict == "passed":
            raise
        # The check has failed already, and it is its own failure that is to be shown.
        return check
    return judged_as(check, classify(check.golden, check.observation.run, repeated=repeated), settings)


def by_decisions_alone(check: Check) -> bool:
    """Return whether the run and its baseline were compared without any logits, which one side has no evidence of."""
    if check.golden is None:
        return False
    return any(record.evidence is None for side in (check.golden, check.observation.run) for record in side.sequences)


def verdict_on(classification: Classification, settings: Settings) -> policies.Judgement:
    """Return what the session's policy says of `classification`."""
    return policies.judge(classification, settings.policy, fail_on=settings.fail_on, allow=settings.allow)


def judged_as(check: Check, classification: Classification, settings: Settings) -> Check:
    """Return `check` with this classification and what the session's policy says of it."""
    assert check.golden is not None
    judgement = verdict_on(classification, settings)
    return replace(
        check,
        verdict="passed" if judgement.passes else "diverged",
        divergence=divergence_of(check.golden, check.observation.run, classification),
        classification=classification,
        judgement=judgement,
    )


def needs_writing(check: Check, settings: Settings) -> bool:
    """Return whether a recording with these settings writes the baseline of `check`."""
    if check.verdict in ("newer", "foreign"):
        return False
    if check.verdict == "missing":
        return True
    if settings.scope == "all":
        return not _holds(check.target, to_record(check))
    if check.verdict == "passed":
        return False
    return settings.scope == "changed" or not _exists(check.target)


def to_record(check: Check) -> Baseline:
    """Return what a recording writes: the run and its logits, with budget and probes of the file that it replaces."""
    logits = None if check.observation.logits is None else check.observation.logits.beside(check.target)
    run = replace(check.observation.run, logits=logits)
    if check.golden is None:
        return run
    kept = rerecording.with_kept(check.golden, run, check.verdict == "passed")
    return kept if check.source == check.target else replace(kept, probes=())


def loses_budget(check: Check) -> bool:
    """Return whether the baseline has a budget that says nothing of the run in its place."""
    return check.golden is not None and rerecording.loses_budget(check.golden, check.observation.run)


def loses_probes(check: Check) -> bool:
    """Return whether the file that a recording writes has probes that say nothing of the run in its place."""
    if check.golden is None or check.source != check.target:
        return False
    return rerecording.loses_probes(check.golden, check.observation.run, check.verdict == "passed")


def written(path: Path) -> Baseline | None:
    """Return the baseline in the file `path`, None where there is none that can be read."""
    try:
        return load(path)
    except FormatError:
        return None


def _holds(path: Path, run: Baseline) -> bool:
    try:
        return path.read_bytes() == dump(run) and (run.logits is None or lies_beside(path, run.logits))
    except (OSError, FormatError):
        return False


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _platform_key(run: Baseline) -> str:
    # A trajectory of a foreign loop comes without an environment.
    return str(run.environment.get(PLATFORM_KEY, "cpu"))


def _as_baseline(run: Run, test: TestId, platform_key: str | None) -> Baseline:
    baseline = run.to_baseline(test)
    if platform_key is None:
        return baseline
    return replace(baseline, environment={**baseline.environment, PLATFORM_KEY: platform_key})


def _repeated(repeat: Callable[[], Run], test: TestId, platform_key: str | None) -> Baseline:
    return _as_baseline(repeat(), test, platform_key)


def _as_run(value: object) -> Run:
    if isinstance(value, Run):
        return value
    if isinstance(value, HoldsRun):
        return value.as_run()
    if isinstance(value, Trajectory):
        return Run((value,))
    if isinstance(value, Sequence) and value and all(isinstance(one, Trajectory) for one in value):
        return Run(tuple(value))
    what = f"an empty {type(value).__name__}" if value in ([], ()) else f"a {type(value).__name__}"
    raise TypeError(
        f"difftrace.check takes a run of llada.generate or difftrace.record, a difftrace.Trajectory or a sequence of "
        f"them, not {what}"
    )


def caller() -> tuple[Path, int]:
    """Return file and line of the innermost code that is not the plugin's own."""
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("pytest_difftrace."):
        frame = frame.f_back
    return Path(frame.f_code.co_filename), frame.f_lineno


def relative(path: Path, config: pytest.Config) -> str:
    """Return `path` as seen from where pytest was started, with forward slashes."""
    try:
        return os.path.relpath(path, config.invocation_params.dir).replace(os.sep, "/")
    except ValueError:  # another drive on Windows
        return path.as_posix()
