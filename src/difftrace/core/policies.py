"""What a test accepts: which classes and outcomes pass, which warn, which fail."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from difftrace.core.classes import CLASSES, DivergenceClass, Finding
from difftrace.core.classification import Classification
from difftrace.core.outcome import Outcome

Policy = Literal["exact", "near-tie", "tokens", "text"]
POLICIES: Final[tuple[Policy, ...]] = get_args(Policy)

# Classes a user may name; being identical is no divergence.
_NAMES: Final = tuple(name for name in CLASSES if name != "IDENTICAL")
_WITHIN_BUDGET: Final = frozenset({"NEAR_TIE", "TIE_BREAK", "DRIFT"})


@dataclass(frozen=True)
class Judgement:
    """What a policy says of a classification.

    Attributes:
        passes: whether the test passes.
        warns: whether it passes although something differs, which is to be reported.
        reason: one sentence saying why.
    """

    passes: bool
    warns: bool
    reason: str


def judge(
    classification: Classification,
    policy: Policy,
    *,
    fail_on: Iterable[str] = (),
    allow: Iterable[str] = (),
) -> Judgement:
    """Return whether a classification passes.

    - "exact": IDENTICAL passes, DRIFT passes with a warning.
    - "near-tie": so do NEAR_TIE, TIE_BREAK and DRIFT, unless something measured exceeds the budget.
    - "tokens": every run with the same final tokens, whatever the order of their commits.
    - "text": every run with the same texts; the same final tokens where a text is not known.

    A close decision may lead to another text, which "near-tie" accepts and the last two do not. A baseline that cannot
    be read passes none. Of several sequences that differ each has to pass. `fail_on` names classes that fail under any
    policy, `allow` classes that pass under any; case does not matter, nor whether a name has `-` or `_`.

    Raises:
        ValueError: `policy`, or a name in `fail_on` or `allow`, is none; both name the same class; or `allow` names
            INVALID, where nothing was compared.
    """
    if policy not in POLICIES:
        raise ValueError(f"there is no policy {policy!r}: use one of {', '.join(POLICIES)}")
    failing, allowed = exceptions(fail_on, allow)
    if classification.divergence_class == "IDENTICAL":
        return Judgement(True, False, "nothing differs that is recorded")
    judgement = _judged(classification, classification.outcome, policy, failing, allowed)
    for other in classification.others if judgement.passes else ():
        judged = _judged(other, classification.outcome, policy, failing, allowed)
        if not judged.passes:
            return replace(judged, reason=f"sequence {other.sequence}: {judged.reason}")
    return judgement


def asks_for_repetition(classification: Classification, judgement: Judgement, fail_on: Iterable[str]) -> bool:
    """Return whether the run has to be repeated before this judgement stands.

    That is where it does not pass, to tell whether it differs from itself, and where it differs and RUN_TO_RUN is to
    fail, which nothing but a repetition shows.
    """
    if classification.divergence_class in ("IDENTICAL", "RUN_TO_RUN"):
        return False
    return not judgement.passes or "RUN_TO_RUN" in divergence_classes(fail_on)


def exceptions(
    fail_on: Iterable[str], allow: Iterable[str]
) -> tuple[frozenset[DivergenceClass], frozenset[DivergenceClass]]:
    """Return the classes that fail and those that pass under any policy; raises ValueError as `judge` does."""
    failing, allowed = divergence_classes(fail_on), divergence_classes(allow)
    if both := sorted(failing & allowed):
        raise ValueError(f"{', '.join(both)} cannot both fail and be allowed")
    if "INVALID" in allowed:
        raise ValueError("INVALID cannot be allowed: a baseline that cannot be read was compared with nothing")
    return failing, allowed


def divergence_classes(names: Iterable[str]) -> frozenset[DivergenceClass]:
    """Return the classes of these names.

    Raises:
        ValueError: a name is none; the message lists those that are.
    """
    found: set[DivergenceClass] = set()
    for given in names:
        name = given.strip().upper().replace("-", "_")
        matching = [one for one in _NAMES if one == name]
        if not matching:
            raise ValueError(f"there is no class of divergence {given!r}: use some of {', '.join(_NAMES)}")
        found.update(matching)
    return frozenset(found)


def _judged(
    found: Classification | Finding,
    outcome: Outcome | None,
    policy: Policy,
    failing: frozenset[DivergenceClass],
    allowed: frozenset[DivergenceClass],
) -> Judgement:
    name = found.divergence_class
    if name in failing:
        return Judgement(False, False, f"{name} was asked to fail")
    if name in allowed:
        return Judgement(True, True, f"{name} was allowed")
    passes, reason = _by_policy(found, outcome, policy)
    return Judgement(passes, passes, reason)


def _by_policy(found: Classification | Finding, outcome: Outcome | None, policy: Policy) -> tuple[bool, str]:
    name = found.divergence_class
    if name == "INVALID":
        return False, "nothing could be compared"
    what = "what differs cannot be told" if name is None else name
    if name == "DRIFT" and policy in ("exact", "near-tie"):
        return True, "no decision differs, and what they were made from does within the budget"
    if policy == "exact":
        return False, f"{what}: the policy exact accepts no divergence"
    if policy == "near-tie":
        if name not in _WITHIN_BUDGET:
            return False, f"{what}: the policy near-tie accepts close decisions within the budget alone"
        if any(measured.exceeds for measured in found.noise):
            return False, f"{name}, but something measured exceeds the budget"
        return True, f"{name} within the budget"
    if outcome is None:
        return False, "the end of the run is not known"
    if policy == "text" and outcome.same_text is not None:
        return outcome.same_text, "the texts are equal" if outcome.same_text else "the texts differ"
    if outcome.tokens == 0:
        return True, "the final tokens are equal"
    return False, f"{outcome.tokens} final token{' differs' if outcome.tokens == 1 else 's differ'}"
