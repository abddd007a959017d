"""What became of a check, as the entry of a report: plain JSON that xdist carries to the controller."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from difftrace.core.checked import (
    BaselineFile,
    Checked,
    FirstDivergence,
    ReceivedFile,
    ReportedMeasure,
    ReportedOutcome,
    ReportedSuspect,
    Status,
)
from difftrace.core.classification import Classification
from difftrace.core.comparison import Divergence
from difftrace.core.recording import Baseline
from difftrace.core.report_json import check_document
from difftrace.core.test_id import TestId
from pytest_difftrace.checks import Check, Observation
from pytest_difftrace.options import Settings
from pytest_difftrace.rooted import clean, from_root, nodeid_of
from pytest_difftrace.session import Entry


class Parting(NamedTuple):
    """Two runs of a test that recording saw differ, why, and where: their first decision that does, if one does."""

    first: Baseline
    second: Baseline
    classification: Classification
    divergence: Divergence | None


class Untold(NamedTuple):
    """A check whose run was not looked at: its test, its name as given, the test's file, and where it was called."""

    test: TestId
    name: object
    module: Path
    at: tuple[Path, int]


def entry_of(
    item: pytest.Item,
    observation: Observation | Untold,
    status: Status,
    settings: Settings,
    seconds: float,
    *,
    check: Check | None = None,
    parting: Parting | None = None,
    text: str | None = None,
    received: ReceivedFile | None = None,
) -> Entry:
    """Return the entry of a check that ended as `status`.

    With a `parting` it tells how the two runs differ, the first as golden, and nothing of how they differ from the
    baseline of `check`.
    """
    config, test = item.config, observation.test
    name = observation.name if isinstance(observation, Untold) else test.name
    found = parting.classification if parting is not None else None if check is None else check.classification
    judgement = None if parting is not None or check is None else check.judgement
    problem = None if parting is not None or check is None else check.problem
    divergence_class, reason = (None, None) if found is None else (found.divergence_class, found.reason)
    if parting is None and check is not None and check.verdict == "unreadable":
        divergence_class = "INVALID"
    if check is not None and check.forced is not None and check.forced.same and found is None:
        divergence_class = "IDENTICAL"
    checked = Checked(
        nodeid=nodeid_of(item),
        module=from_root(observation.module, config),
        id=clean(test.id),
        name=None if name is None else clean(str(name)),
        file=from_root(observation.at[0], config),
        line=max(observation.at[1], 1),
        run=0,
        status=status,
        divergence_class=divergence_class,
        reason=reason if problem is None else problem,
        judgement=None if judgement is None else judgement.reason,
        cannot_tell=() if found is None else found.cannot_tell,
        outcome=None if found is None or found.outcome is None else ReportedOutcome(**vars(found.outcome)),
        first_divergence=_first(check, parting),
        measured=() if found is None else tuple(ReportedMeasure(**vars(one)) for one in found.noise),
        budget=None if found is None else found.tau_source,
        suspects=() if found is None else tuple(ReportedSuspect(**vars(one)) for one in found.suspects),
        policy=settings.policy,
        strategy="rerun" if check is None or check.forced is None else settings.strategy,
        environment=None,
        seconds=round(max(seconds, 0.0), 6),
        baseline=None if check is None else _baseline(check, config),
        target=None if check is None else from_root(check.target, config),
        received=received,
        text=text,
    )
    environment = {} if isinstance(observation, Untold) else dict(observation.run.environment)
    return {"check": check_document(checked), "environment": environment or None}


def _first(check: Check | None, parting: Parting | None) -> FirstDivergence | None:
    if parting is not None:
        return _with_pieces(parting.divergence, parting.first, parting.second)
    return None if check is None else _with_pieces(check.divergence, check.golden, check.observation.run)


def _with_pieces(found: Divergence | None, golden: Baseline | None, observed: Baseline) -> FirstDivergence | None:
    if found is None or golden is None:
        return None
    sides = ((golden, found.golden), (observed, found.observed))
    golden_piece, observed_piece = (None if token is None else side.pieces.get(token) for side, token in sides)
    return FirstDivergence(**vars(found), golden_piece=golden_piece, observed_piece=observed_piece)


def _baseline(check: Check, config: pytest.Config) -> BaselineFile:
    digest = None if check.golden is None else check.golden.digest
    return BaselineFile(from_root(check.source, config), check.shared, digest, check.sha256)
