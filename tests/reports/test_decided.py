"""What a step committed is explained as far as it was recorded, and no further."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from difftrace.core.evidence import DIGEST_LANES, PROJECTIONS, REJECTED, Evidence
from difftrace.core.recording import Baseline
from difftrace.core.run import Run
from difftrace.core.trajectory import Trajectory
from difftrace.reports.columns import width
from difftrace.reports.decided import decision_lines

RUN = Trajectory([], [0, 0, 0, 0], [0, 0, 2], [1, 2, 3], [5, 6, 7], 3)


@pytest.fixture
def golden() -> Baseline:
    evidence = Evidence(
        top_tokens=[5, 8, 7],
        top_scores=[3.0, 2.0, 1.0],
        runner_up_tokens=[6, 6, 5],
        runner_up_scores=[1.0, 1.5, np.nan],
        confidences=[-0.1, -0.2, np.nan],
        candidates=[4, 0, 1],
        rejected_positions=[[0, 3, *[-1] * (REJECTED - 2)], *[[-1] * REJECTED] * 2],
        rejected_tokens=[[5, 6, *[-1] * (REJECTED - 2)], *[[-1] * REJECTED] * 2],
        rejected_confidences=[[-0.2, -0.5, *[np.nan] * (REJECTED - 2)], *[[np.nan] * REJECTED] * 2],
        ties=[1, 0, 0],
        non_finite=[0, 0, 0],
        logits_digests=[[1] * DIGEST_LANES] * 3,
        sketches=[[0.0] * PROJECTIONS] * 3,
        sketched=[10, 10, 10],
        noise_digests=[0, 0, 0],
    )
    return Run((RUN,), evidences=(evidence,), pieces={5: "a", 6: " b", 7: "\x1b"}).to_baseline(None)


def test_tokens_come_with_confidence_margin_and_runner_up(golden: Baseline) -> None:
    assert list(decision_lines(golden, 0, 0, 100)) == [
        "position 1 takes 5 'a': log-confidence -0.1, 2 above 6 '␣b'",
        "position 2 takes 6 '␣b': log-confidence -0.2, the best was token 8, 0.5 above 6 '␣b'",
        "4 candidates, 1 of them tied with the last one chosen; next in line: 0 5 'a' -0.2, 3 6 '␣b' -0.5",
    ]


def test_what_is_not_known_is_not_made_up(golden: Baseline) -> None:
    assert list(decision_lines(golden, 0, 2, 100)) == [
        "position 3 takes 7 '\\x1b': log-confidence unknown, unknown above 5 'a'",
        "1 candidate; next in line: none",
    ]
    bare = replace(golden, sequences=(replace(golden.sequences[0], evidence=None),))
    assert list(decision_lines(bare, 0, 2, 100)) == ["position 3 takes 7 '\\x1b'"]


def test_a_step_may_commit_nothing(golden: Baseline) -> None:
    assert next(decision_lines(golden, 0, 1, 100)) == "step 1 commits nothing"


def test_lines_fit(golden: Baseline) -> None:
    assert max(width(line) for line in decision_lines(golden, 0, 0, 40)) <= 40
