"""A classification as a few lines: the class and why, what was measured, what is not known, what else differs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from difftrace.core.checked import ReportedMeasure, ReportedOutcome
from difftrace.core.classes import CANNOT_TELL, Finding
from difftrace.core.classification import Classification
from difftrace.core.noise import Measured
from difftrace.core.outcome import Outcome
from difftrace.core.suspects import Suspect
from difftrace.core.text import printable
from difftrace.reports.columns import clip, wrapped

_MOST_SUSPECTS: Final = 5
_MOST_OTHERS: Final = 8
_WIDEST_VALUE: Final = 28


def verdict_lines(classification: Classification) -> list[str]:
    """Return the text, in lines of at most 100 columns; what would start a line anew is indented by two."""
    lines = reason_lines(classification)
    if classification.suspects:
        lines += wrapped(f"suspects: {'; '.join(_suspects(classification.suspects))}", "  ")
    return lines


def reason_lines(classification: Classification, policy: str | None = None) -> list[str]:
    """Return the text without the suspects, to be put where what else differs is told already.

    What the `policy` says of it comes second, so that it stays where only the first lines are shown.
    """
    judged = [] if policy is None else wrapped(f"policy: {policy}", "  ")
    return [*wrapped(f"{_heading(classification)}: {classification.reason}"), *judged, *detail_lines(classification)]


def detail_lines(classification: Classification) -> list[str]:
    """Return other sequences, what was measured, what came of it and what is not known, indented."""
    lines = []
    if classification.others:
        lines += wrapped(f"other sequences: {'; '.join(_others(classification.others))}", "  ")
    if classification.noise:
        lines += wrapped(f"measured: {'; '.join(map(measured_text, classification.noise))}", "  ")
        lines += budget_lines(classification)
    if classification.outcome is not None:
        lines += wrapped(f"outcome: {outcome_text(classification.outcome)}", "  ")
    for sentence in classification.cannot_tell:
        lines += wrapped(f"cannot tell: {sentence}", "  ")
    return lines


def budget_lines(classification: Classification) -> list[str]:
    """Return where the budget is from, indented."""
    return wrapped(f"budget: {classification.tau_source or 'none'}", "  ")


def _heading(classification: Classification) -> str:
    name = classification.divergence_class or CANNOT_TELL
    kind = "" if classification.kind is None else f" ({classification.kind})"
    # Most runs have one sequence.
    where = f", sequence {classification.sequence}" if classification.sequence else ""
    return f"{name}{kind}{where}"


def measured_text(measured: Measured | ReportedMeasure) -> str:
    """Return "logits differ by rms 0.095 (budget 0.14, 1 step)"."""
    unit, values = ("rms ", "step") if measured.quantity == "logits" else ("", "value")
    budget = "" if measured.tau is None else f"budget {measured.tau:.2g}, "
    counted = f"{measured.count} {values}{'' if measured.count == 1 else 's'}"
    return f"{measured.quantity} differ by {unit}{measured.epsilon:.2g} ({budget}{counted})"


def outcome_text(outcome: Outcome | ReportedOutcome) -> str:
    """Return "3 final tokens and 5 commits differ"."""
    commits = _counted(outcome.commits, "commit")
    if outcome.kind == "IDENTICAL":
        return "the same decisions"
    if outcome.kind == "ORDER_ONLY":
        return f"the same final tokens in another order ({commits} of it)"
    if outcome.tokens == 0:
        return "the same final tokens, read as another text"
    text = "" if not outcome.same_text else ", the same text"
    return f"{_counted(outcome.tokens, 'final token')} and {commits} differ{text}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _others(others: tuple[Finding, ...]) -> Iterator[str]:
    for one in others[:_MOST_OTHERS]:
        yield f"{one.sequence} {one.divergence_class or CANNOT_TELL} at step {one.step}"
    if len(others) > _MOST_OTHERS:
        yield f"{len(others) - _MOST_OTHERS} more"


def _suspects(suspects: tuple[Suspect, ...]) -> Iterator[str]:
    for one in suspects[:_MOST_SUSPECTS]:
        yield f"{one.field} {_value(one.golden)} → {_value(one.observed)}"
    if len(suspects) > _MOST_SUSPECTS:
        yield f"{len(suspects) - _MOST_SUSPECTS} more"


def _value(value: Any) -> str:
    return "nothing" if value is None else clip(printable(str(value)), _WIDEST_VALUE)
