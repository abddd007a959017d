"""What one step committed and why, from the evidence that was recorded with it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from difftrace.core.evidence import Evidence
from difftrace.core.recording import Baseline
from difftrace.reports.canvas import token_text
from difftrace.reports.columns import clip


def decision_lines(baseline: Baseline, sequence: int, step: int, columns: int) -> Iterator[str]:
    """Yield a line for every token that `step` committed and one for the positions it did not choose.

    Confidences are logarithms and margins are in units of logits, as `difftrace.core.evidence` defines them.
    """
    record = baseline.sequences[sequence]
    trajectory, evidence = record.trajectory, record.evidence
    first, last = trajectory.steps.searchsorted([step, step + 1]).tolist()
    if first == last:
        yield f"step {step} commits nothing"
    for event in range(first, last):
        position, token = int(trajectory.positions[event]), int(trajectory.tokens[event])
        why = "" if evidence is None else f": {_why(baseline, evidence, event, token)}"
        yield clip(f"position {position} takes {_token(baseline, token)}{why}", columns)
    if evidence is not None:
        yield clip(_rejected(baseline, evidence, step), columns)


def _why(baseline: Baseline, evidence: Evidence, event: int, token: int) -> str:
    margin = float(evidence.top_scores[event]) - float(evidence.runner_up_scores[event])
    top = int(evidence.top_tokens[event])
    other = "" if top == token else f"the best was {_token(baseline, top)}, "
    runner_up = _token(baseline, int(evidence.runner_up_tokens[event]))
    confidence = _number(evidence.confidences[event])
    return f"log-confidence {confidence}, {other}{_number(margin)} above {runner_up}"


def _rejected(baseline: Baseline, evidence: Evidence, step: int) -> str:
    candidates, ties = int(evidence.candidates[step]), int(evidence.ties[step])
    rows = zip(
        evidence.rejected_positions[step].tolist(),
        evidence.rejected_tokens[step].tolist(),
        evidence.rejected_confidences[step].tolist(),
        strict=True,
    )
    listed = [f"{p} {_token(baseline, token)} {_number(value)}" for p, token, value in rows if p >= 0]
    tied = f", {ties} of them tied with the last one chosen" if ties else ""
    return f"{candidates} candidate{'' if candidates == 1 else 's'}{tied}; next in line: {', '.join(listed) or 'none'}"


def _token(baseline: Baseline, token: int) -> str:
    known = token in baseline.pieces
    return f"{token} '{token_text(token, baseline.pieces)}'" if known else f"token {token}"


def _number(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{float(value):.3g}"
