"""Baselines that another job recorded, checked and put in their places.

The job that recorded ran the tests of its checkout on a machine of its own; what it hands over is data. Where a file
goes follows from its test alone, every file is validated, and all are written or none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from difftrace.core.acceptance import Proposal, promote
from difftrace.core.baseline import Baseline, load, parse
from difftrace.core.baseline_names import baseline_path
from difftrace.core.checked import Checked
from difftrace.core.errors import FormatError, ReportError
from difftrace.core.file_format import read_file
from difftrace.core.inside import inside
from difftrace.core.limits import MAX_BASELINE_BYTES
from difftrace.core.report_files import find_rootdir, open_report
from difftrace.core.side_logits import open_beside, remove_beside
from difftrace.core.test_id import TestId
from pytest_difftrace.github.recorded import hand_on_logits, recorded_in, written
from pytest_difftrace.github.results_folder import RECORDED


def promoted(results: Path, checkout: Path | None) -> list[Proposal]:
    """Put the baselines in `results`, a recording's results folder, in their places below `checkout`.

    Without `checkout` that is the folder that the results lie in, where the tests are there, else the current one.

    Raises:
        DiffTraceError: one of them is not what the recording's report says, or its place is not; nothing was written.
    """
    files = open_report(results)
    checks = written(files.report)
    named = recorded_in(results)
    given = checkout if named is None else inside(checkout or Path(), named)
    root = find_rootdir(files, given, [check.module for check in checks])
    proposals = [_proposal(check, results, root, _platform(files.report.environments, check)) for check in checks]
    for one in proposals:  # before the baselines that refer to them
        hand_on_logits(one.received, _handed_on(results, one.check), one.target)
    promote(proposals)
    for one in proposals:
        if one.received.logits is None and one.current is not None and one.current.logits is not None:
            remove_beside(one.target)
    return proposals


def _platform(environments: Sequence[object], check: Checked) -> str:
    environment = {} if check.environment is None else environments[check.environment]
    return str(environment.get("platform_key", "cpu")) if isinstance(environment, dict) else "cpu"


def _proposal(check: Checked, results: Path, root: Path, platform: str) -> Proposal:
    assert check.target is not None
    test = TestId(PurePosixPath(check.module).name, check.id, check.name)
    module = inside(root, check.module)
    places = {
        path.relative_to(root).as_posix() for path in (baseline_path(module, test, key) for key in (None, platform))
    }
    if check.target not in places:
        raise ReportError(f"{check.target} is not where the baseline of {check.title} lies")
    path = _handed_on(results, check)
    data, source = read_file(path, MAX_BASELINE_BYTES)
    recorded = parse(data, source)
    if recorded.test != test:
        raise ReportError(f"{source} belongs to another test than {check.title}")
    if recorded.logits is not None:
        open_beside(path, recorded.logits)
    target = inside(root, check.target)
    _check_unchanged(check, target)
    return Proposal(check, target, data, recorded, _current(target))


def _handed_on(results: Path, check: Checked) -> Path:
    return inside(results, f"{RECORDED}/{check.target}")


def _check_unchanged(check: Checked, target: Path) -> None:
    """Raise where the baseline is not the one that the recording found."""
    replaced = check.baseline is not None and check.baseline.path == check.target
    expected = check.baseline.sha256 if check.baseline is not None and replaced else None
    found = f"sha256:{hashlib.sha256(target.read_bytes()).hexdigest()}" if target.exists() else None
    if found != expected:
        raise ReportError(f"{check.target} has changed since it was recorded elsewhere; record again")


def _current(target: Path) -> Baseline | None:
    try:
        return load(target) if target.exists() else None
    except FormatError:
        return None
