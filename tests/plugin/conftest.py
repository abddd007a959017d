"""Small suites run by an inner pytest, in this process where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

# The inner pytest forgets modules that it was the first to import; numpy cannot be imported twice in one process.
import difftrace.core.baseline
import difftrace.core.run
import difftrace.core.schemas
import pytest_difftrace.checker
import pytest_difftrace.early
import pytest_difftrace.recording  # noqa: F401

PRELUDE = """
import os
from pathlib import Path
import pytest
from difftrace import Trajectory
from difftrace.core.run import Run

def traj(*tokens):
    count = len(tokens)
    return Trajectory(prompt=[1, 2], initial=[1, 2] + [99] * count, steps=list(range(count)),
                      positions=list(range(2, 2 + count)), tokens=list(tokens), num_steps=count)
"""

# Runs that say why they decided so: one candidate a step, with token 50 far behind unless `runner` is close.
EVIDENT = """
import numpy as np
from difftrace.core.evidence import DIGEST_LANES, PROJECTIONS, REJECTED, Evidence
from difftrace.core.recording import ModelIdentity, SamplerIdentity

def evidence(tokens, runner, margin, rms):
    count = len(tokens)
    close = [runner is not None and index == count - 1 for index in range(count)]
    return Evidence(
        top_tokens=tokens, top_scores=[5.0] * count,
        runner_up_tokens=[runner if one else 50 for one in close],
        runner_up_scores=[5.0 - margin if one else 0.0 for one in close],
        confidences=[-0.1] * count, candidates=[1] * count,
        rejected_positions=[[-1] * REJECTED] * count, rejected_tokens=[[-1] * REJECTED] * count,
        rejected_confidences=[[np.nan] * REJECTED] * count, ties=[0] * count, non_finite=[0] * count,
        logits_digests=[[1 + int(rms * 1e9)] * DIGEST_LANES] * count,
        sketches=[[100 * rms] * PROJECTIONS] * count, sketched=[10_000] * count, noise_digests=[0] * count)

def run(*tokens, rms=0.0, runner=None, margin=2e-5, weights='a', seed=0, where='cpu', dtype='float32', text=None,
        repeat=None):
    model = ModelIdentity('m', None, *(f'sha256:{one * 64}' for one in (weights, 'b', 'c')), 100, 99)
    environment = {'platform_key': where, 'dtype': dtype, 'canary': 'sha256:' + '0' * 64}
    return Run((traj(*tokens),), texts=None if text is None else (text,), model=model,
               sampler=SamplerIdentity('llada', 1, {'seed': seed}), environment=environment,
               evidences=(evidence(tokens, runner, margin, rms),), repeat=repeat)
"""

# Plugins that only cost time here: in each inner run anew, hypothesis imports its engine and anyio its backends.
QUIET = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:anyio")

Suite = Callable[..., Path]
Pytest = Callable[..., pytest.RunResult]


@pytest.fixture(autouse=True)
def _validator() -> None:
    difftrace.core.schemas.validator("baseline")


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Suite:
    """Write the test module `test_x.py` (or another name) and return its path."""

    def write(body: str, name: str = "test_x") -> Path:
        return pytester.makepyfile(**{name: PRELUDE + body})

    return write


@pytest.fixture
def evident(suite: Suite) -> Callable[..., Path]:
    """Write `test_x.py` with one test, which checks the run that `expression` makes after `setup`."""

    def write(expression: str, setup: str = "") -> Path:
        return suite(f"{EVIDENT}\n{setup}\ndef test_a(difftrace): difftrace.check({expression})\n")

    return write


@pytest.fixture
def run_pytest(pytester: pytest.Pytester) -> Pytest:
    """Run the inner pytest in this process, without the outer one's distribution over workers."""

    def run(*arguments: str | Path) -> pytest.RunResult:
        return pytester.runpytest_inprocess(*QUIET, *arguments)

    return run


@pytest.fixture
def baselines(pytester: pytest.Pytester) -> Callable[[], dict[str, bytes]]:
    """Return every file below `__difftrace__` folders, by path from the suite's folder."""

    def read() -> dict[str, bytes]:
        found = sorted(pytester.path.rglob("__difftrace__/**/*"))
        return {path.relative_to(pytester.path).as_posix(): path.read_bytes() for path in found if path.is_file()}

    return read
