"""Whether noise explains that two runs decided differently on the same canvas.

Noise that changes every score or log-confidence by at most e turns a token a into b at a position only if the golden
margin between them is at most 2e, and the commit of p into that of q only if the golden gap of their confidences is at
most 2e: each of the two moves by at most e. The observed run shows how far they moved beyond the turn, so margin there
and margin here together are at most 2e too; half of that sum is the noise that a flip *needs*. For sets of positions
every golden one must fall below every observed one, so the pair that needs most decides. A candidate that is not among
the listed ones is at most as confident as the last of them, which bounds the need from below.

What e is matters more than the rule. It is never less than the need where both runs record the values of the flip
itself: measured by its own values alone every flip is "explained", and the rule says nothing beyond e <= budget. So e
is taken from other witnesses (`Differences.elsewhere`): the differences at all other decisions up to this step, which
share its canvases, and the root mean square of all logits, times what a single one may be above it. Together with the
budget, which the flip's own values are held against too, the rule then shows that the flip needs no more than the
computation moved everywhere, and that this is no more than trusted environments do. It cannot show the cause: a fault
that moves logits by less than the budget, and nothing by more than the rest, looks like noise. Nor is what it does not
explain always a fault in the loop: logits that changed in one place alone fail it too, as they should.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from difftrace.core.decisions import Commit, Decision

Answer = Literal["yes", "no", "unknown"]


@dataclass(frozen=True)
class Flips:
    """What two decisions do not share.

    Attributes:
        tokens: positions that both commit, to different tokens.
        golden: positions that only the golden commits.
        observed: positions that only the observed run commits.
    """

    tokens: tuple[int, ...]
    golden: tuple[int, ...]
    observed: tuple[int, ...]


@dataclass(frozen=True)
class Need:
    """How much noise a flip needs: at least `least`, NaN if that is not known; `known` if the golden records it."""

    least: float
    known: bool

    def met(self, epsilon: float) -> Answer:
        """Say whether noise of `epsilon` is enough."""
        if math.isnan(self.least):
            return "unknown"
        if self.least > epsilon:
            return "no"
        return "yes" if self.known else "unknown"


def flips(golden: Decision, observed: Decision) -> Flips:
    """Return what two decisions do not share."""
    one, other = golden.commits, observed.commits
    return Flips(
        tuple(p for p in one if p in other and one[p].token != other[p].token),
        tuple(p for p in one if p not in other),
        tuple(p for p in other if p not in one),
    )


def token_need(golden: Commit, observed: Commit) -> Need:
    """Return how much noise turns the token of one commit into that of the other."""
    return Need((golden.margin + observed.margin) / 2, observed.token in (golden.top, golden.runner_up))


def order_need(golden: Decision, observed: Decision, differing: Flips) -> Need:
    """Return how much noise makes the observed positions overtake the golden ones; infinite if one was no candidate."""
    falls, rises = [], []
    for p in differing.golden:
        there = observed.bounds(p)
        falls.append(math.inf if there is None else _gap(golden.commits[p].confidence, there[1]))
    for q in differing.observed:
        here = golden.bounds(q)
        rises.append(math.inf if here is None else _gap(observed.commits[q].confidence, here[1]))
    bounds = [golden.bounds(q) for q in differing.observed]
    known = all(pair is not None and pair[0] == pair[1] for pair in bounds)
    if any(map(math.isnan, falls + rises)):
        return Need(math.nan, known)
    return Need((max(falls) + max(rises)) / 2, known)


def explained(golden: Decision, observed: Decision, differing: Flips, scores: float, confidences: float) -> Answer:
    """Say whether noise of up to `scores` and `confidences` explains every flip; as many are on either side."""
    answers = [token_need(golden.commits[p], observed.commits[p]).met(scores) for p in differing.tokens]
    if differing.golden:
        answers.append(_order(golden, observed, differing, scores, confidences))
    return "no" if "no" in answers else "unknown" if "unknown" in answers else "yes"


def _order(golden: Decision, observed: Decision, differing: Flips, scores: float, confidences: float) -> Answer:
    """Say whether noise explains the order.

    A position that would take another token in the other run has another confidence for that reason alone. Where noise
    explains the token, it explains the position's rank.
    """
    hidden = {p: _hidden(golden.commits[p], observed, p, scores) for p in differing.golden}
    hidden |= {q: _hidden(observed.commits[q], golden, q, scores) for q in differing.observed}
    left = tuple(p for p in differing.golden if hidden[p] != "yes")
    right = tuple(q for q in differing.observed if hidden[q] != "yes")
    if not left or not right:
        return "yes"
    answer = order_need(golden, observed, Flips((), left, right)).met(confidences)
    return "unknown" if answer == "no" and "unknown" in hidden.values() else answer


def _hidden(commit: Commit, other: Decision, position: int, epsilon: float) -> Answer:
    """Say whether the other run, which rejects `position`, would have put another token there because of noise."""
    seen = other.rejected.get(position)
    if seen is None:
        return "no" if commit.margin / 2 > epsilon else "unknown"
    if seen.token == commit.token:
        return "no"
    return Need(commit.margin / 2, seen.token in (commit.top, commit.runner_up)).met(epsilon)


def _gap(high: float, low: float) -> float:
    return 0.0 if high == low else high - low


def tied_alike(golden: Decision, observed: Decision, differing: Flips) -> bool:
    """Say whether two runs with the same logits chose differently among what is exactly equal.

    With the same logits a confidence that one of them does not record is the one that the other does.
    """
    if len(differing.golden) != len(differing.observed) or not _tokens_tie(golden, differing.tokens):
        return False
    if not differing.golden:
        return True
    bounds = [side.bounds(p) or (math.nan,) * 2 for side in (golden, observed) for p in _positions(differing)]
    values = [low for low, high in bounds if not low < high]
    return _all_equal(values) and bool(golden.ties or observed.ties)


def tied_in_both(golden: Decision, observed: Decision, differing: Flips) -> bool:
    """Say whether all that is involved is exactly equal within either run, whatever their logits."""
    if not (_tokens_tie(golden, differing.tokens) and _tokens_tie(observed, differing.tokens)):
        return False
    return all(
        _all_equal(value for p in _positions(differing) for value in side.bounds(p) or (math.nan,))
        for side in (golden, observed)
    )


def _positions(differing: Flips) -> tuple[int, ...]:
    return differing.golden + differing.observed


def _tokens_tie(side: Decision, positions: Iterable[int]) -> bool:
    return all(side.commits[p].top_score == side.commits[p].runner_up_score for p in positions)


def _all_equal(values: Iterable[float]) -> bool:
    found = list(values)
    return all(value == found[0] for value in found)
