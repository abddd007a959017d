"""One check: a run, the baseline it belongs to, and what their comparison says."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from difftrace.core.baseline import dump, load
from difftrace.core.comparison import Divergence, compare_sequences
from difftrace.core.errors import FormatError, NewerFormatError
from difftrace.core.recording import Baseline, TestId
from difftrace.core.run import Run
from difftrace.core.trajectory import Trajectory
from pytest_difftrace.locations import baseline_path, test_id
from pytest_difftrace.options import Policy, Settings
from pytest_difftrace.platforms import PLATFORM_KEY

# No frame of this module in the traceback of a wrong call: it is the caller's line that matters.
__tracebackhide__ = True

Verdict = Literal["equal", "diverged", "missing", "unreadable", "newer", "foreign"]


@dataclass(frozen=True)
class Observation:
    """A run as a test handed it over.

    Attributes:
        test: the check.
        run: what was observed, as the baseline it would be recorded as.
        module: file of the test.
        line: where the check is, "tests/test_sum.py:7".
    """

    test: TestId
    run: Baseline
    module: Path
    line: str


@dataclass(frozen=True)
class Check:
    """An observation and what its baseline says of it.

    Attributes:
        observation: what was observed.
        verdict: the comparison's result. "newer": written by a newer version; "foreign": the file is another test's.
        source: the file compared with; for "missing" the one that a recording writes.
        target: the file that a recording writes.
        golden: content of `source` where it could be read.
        divergence: first differing decision, where there is one.
        problem: the reader's one line for "unreadable" and "newer".
        shared: whether `source` is the file for all platforms, else the one for this platform.
    """

    observation: Observation
    verdict: Verdict
    source: Path
    target: Path
    golden: Baseline | None = None
    divergence: Divergence | None = None
    problem: str | None = None
    shared: bool = True


def observe(item: pytest.Item, value: object, name: str | None, platform_key: str | None) -> Observation:
    """Return what a test handed to `difftrace.check`; `platform_key` replaces what the run calls its platform.

    Raises:
        TypeError: `value` is no run.
        ValueError: `name` is no name.
    """
    test = test_id(item, name)
    run = _as_run(value).to_baseline(test)
    if platform_key is not None:
        run = replace(run, environment={**run.environment, PLATFORM_KEY: platform_key})
    return Observation(test, run, item.path, _line_of_caller(item.config))


def judge(observation: Observation, settings: Settings) -> Check:
    """Compare `observation` with its baseline: that of this platform where there is one, else the shared one."""
    module, test = observation.module, observation.test
    shared = baseline_path(module, test)
    own = baseline_path(module, test, _platform_key(observation.run))
    target = own if settings.per_platform or _exists(own) else shared
    source = next((path for path in (own, shared) if _exists(path)), None)
    if source is None:
        return Check(observation, "missing", target, target)
    verdict: Verdict
    try:
        golden = load(source)
    except FormatError as error:
        verdict = "newer" if isinstance(error, NewerFormatError) else "unreadable"
        return Check(observation, verdict, source, target, problem=str(error))
    if golden.test is not None and golden.test != test:
        return Check(observation, "foreign", source, target, golden)
    if golden.same_decisions(observation.run):
        divergence = None
    else:
        divergence = compare_sequences(*(trajectories(b) for b in (golden, observation.run)))
    same = _same(golden, observation.run, divergence, settings.policy)
    verdict = "equal" if same else "diverged"
    return Check(observation, verdict, source, target, golden, divergence, shared=source == shared)


def needs_writing(check: Check, settings: Settings) -> bool:
    """Return whether a recording with these settings writes the baseline of `check`."""
    if check.verdict in ("newer", "foreign"):
        return False
    if check.verdict == "missing":
        return True
    if settings.scope == "all":
        return not _holds(check.target, check.observation.run)
    if check.verdict == "equal":
        return False
    return settings.scope == "changed" or not _exists(check.target)


def owner(path: Path) -> TestId | None:
    """Return the check that the file `path` belongs to, None where there is no such file or it does not say."""
    try:
        return load(path).test
    except FormatError:
        return None


def _holds(path: Path, run: Baseline) -> bool:
    try:
        return path.read_bytes() == dump(run)
    except (OSError, FormatError):
        return False


def _same(golden: Baseline, run: Baseline, divergence: Divergence | None, policy: Policy) -> bool:
    if policy == "exact":
        return divergence is None
    if len(golden.sequences) != len(run.sequences):
        return False
    for one, other in zip(golden.sequences, run.sequences, strict=True):
        if one.text is None or other.text is None:
            if not np.array_equal(one.trajectory.final, other.trajectory.final):
                return False
        elif one.text != other.text:
            return False
    return True


def trajectories(baseline: Baseline) -> list[Trajectory]:
    """Return the trajectories of the batch."""
    return [record.trajectory for record in baseline.sequences]


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _platform_key(run: Baseline) -> str:
    # A trajectory of a foreign loop comes without an environment.
    return str(run.environment.get(PLATFORM_KEY, "cpu"))


def _as_run(value: object) -> Run:
    if isinstance(value, Run):
        return value
    if isinstance(value, Trajectory):
        return Run((value,))
    if isinstance(value, Sequence) and value and all(isinstance(one, Trajectory) for one in value):
        return Run(tuple(value))
    what = f"an empty {type(value).__name__}" if value in ([], ()) else f"a {type(value).__name__}"
    raise TypeError(
        f"difftrace.check takes a run of llada.generate, a difftrace.Trajectory or a sequence of them, not {what}"
    )


def _line_of_caller(config: pytest.Config) -> str:
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("pytest_difftrace."):
        frame = frame.f_back
    return f"{relative(Path(frame.f_code.co_filename), config)}:{frame.f_lineno}"


def relative(path: Path, config: pytest.Config) -> str:
    """Return `path` as seen from where pytest was started, with forward slashes."""
    try:
        return Path(os.path.relpath(path, config.invocation_params.dir)).as_posix()
    except ValueError:  # another drive on Windows
        return path.as_posix()
