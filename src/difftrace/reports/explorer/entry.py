"""One check as the explorer takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from difftrace.core.classification import Classification
from difftrace.core.recording import Baseline

# "recorded": a baseline that was compared with nothing. "other": neither passed nor failed, such as a check whose test
# was skipped or whose result is not known.
Status = Literal["passed", "failed", "recorded", "other"]


@dataclass(frozen=True)
class Entry:
    """A check, with as much as is known of it.

    Attributes:
        test: what it is listed as, the test's id.
        status: how it ended, as the list is coloured and filtered by it.
        outcome: the same in the words of its report, "allowed" or "without baseline".
        divergence_class: class of the divergence; None where there is none or it cannot be told.
        step: the first step that differs, where one does.
        position: canvas position of the first decision that differs, where one does.
        facts: pairs of a label and a text that are shown with it: the policy, the paths.
        problems: sentences on what could not be shown: a file that is missing or cannot be read.
        golden: the baseline.
        observed: the run it was compared with.
        classification: why the two differ.
        reason: one sentence on it, where there is no classification.
    """

    test: str
    status: Status
    outcome: str
    divergence_class: str | None = None
    step: int | None = None
    position: int | None = None
    facts: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()
    golden: Baseline | None = None
    observed: Baseline | None = None
    classification: Classification | None = None
    reason: str | None = None
