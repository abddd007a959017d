"""One check as the explorer takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from difftrace.core.recording import Baseline
from difftrace.core.suspects import Suspect

# "recorded": a baseline that was compared with nothing. "other": neither passed nor failed, such as a check that was
# skipped.
Status = Literal["passed", "failed", "recorded", "other"]


@dataclass(frozen=True)
class Verdict:
    """What was said of a check when its run was compared.

    Attributes:
        reason: one sentence on why the run differs.
        measured: lines on how far the two are apart.
        budget: where the budget is from that this was held against.
        came: what came of the two in the end.
        unknown: sentences on what is not known.
        suspects: what else differs, likeliest cause first.
        text: lines of the failure as the terminal shows it.
    """

    reason: str | None = None
    measured: tuple[str, ...] = ()
    budget: str | None = None
    came: str | None = None
    unknown: tuple[str, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    text: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parting:
    """The first decision that differs, as it was told; `difftrace.core.comparison.Divergence` has the fields.

    Attributes:
        golden: the token's text, or its number, or None where the golden has none there.
        observed: likewise of the observed run.
    """

    kind: str
    sequence: int
    step: int | None
    position: int | None
    golden: str | None
    observed: str | None


@dataclass(frozen=True)
class Entry:
    """A check, with as much as is known of it.

    Attributes:
        test: what it is listed as, the test's id.
        status: how it ended, as the list is coloured and filtered by it.
        outcome: the same in the words of its report, "allowed" or "without baseline".
        divergence_class: class of the divergence; None where there is none or it cannot be told.
        parting: the first decision that differs.
        verdict: what was said of it; None where nothing was compared.
        facts: pairs of a label and a text that are shown with it: the policy, the paths.
        problems: sentences on what could not be shown: a file that is missing or cannot be read.
        golden: the baseline.
        observed: the run it was compared with.
    """

    test: str
    status: Status
    outcome: str
    divergence_class: str | None = None
    parting: Parting | None = None
    verdict: Verdict | None = None
    facts: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()
    golden: Baseline | None = None
    observed: Baseline | None = None
