"""Classes of divergence, the policies that judge them, the budgets they are held against."""

from __future__ import annotations

import re
from typing import Final, get_args

from difftrace.core import classes
from difftrace.core.budgets import DEFAULTS, SPREAD
from difftrace.core.classes import DivergenceClass
from difftrace.core.classification import Classification
from difftrace.core.outcome import Outcome
from difftrace.core.policies import POLICIES, Policy, judge
from reference_pages.markdown import prose, table

_FIRST: Final[dict[DivergenceClass, str]] = {
    "IDENTICAL": "Nothing.",
    "INVALID": "`difftrace validate` says what is wrong with the file; restore it, or record it anew.",
    "INPUT": "The prompt, the chat template and the tokenizer's files.",
    "CONFIG": "The sampler's arguments and the model's `config.json`; the failure names what differs.",
    "WEIGHTS": "Which checkpoint was loaded, and its revision.",
    "NON_FINITE": "Overflow in a narrow dtype, or a broken kernel: `--difftrace-bisect`.",
    "RUN_TO_RUN": "`difftrace doctor`, `difftrace scan` and `--difftrace-bisect` find what does not repeat itself.",
    "TIE_BREAK": "Whether the sampler orders equal values; `tie_break='stable'` does.",
    "RNG": "Seed, batch and padding; `noise='portable'` does not depend on the last two.",
    "LOGIC": "What changed in the loop: the schedule, the selection, the remasking.",
    "NEAR_TIE": "Whether the environment changed. If so accept it with `--difftrace-policy=near-tie`, or record anew.",
    "NUMERIC": "Kernels, dtype, quantisation: `difftrace bisect` names the module.",
    "DRIFT": "Usually nothing; the environment's suspects, if it grows.",
    "LENGTH": "Number of steps, early stopping, block length.",
}
_HEAD = """# Classes and policies

## Classes

A failing check names the class of its first divergence. The rules are asked in a fixed order and the first that applies
wins; [how it is decided](../explanation/why-runs-differ.md#what-a-failing-check-can-know) says why only the first
divergence counts.
"""
_POLICIES = """## Policies

What each policy (`--difftrace-policy`, ini `difftrace_policy`) says of a class. "Equal tokens" means that the final
tokens have to be equal, "equal texts" the texts. A class in `--difftrace-fail-on` fails under any policy, one in
`--difftrace-allow` passes under any; what passes although something differs is listed at the end of the run.
"""
_NEAR_TIE = """Under `near-tie`, `NEAR_TIE` and `TIE_BREAK` pass only while everything measured stays within the budget.
`NONE` stands for a divergence whose class the recorded evidence cannot tell.
"""
_BUDGETS = f"""## Budgets

How much of a difference is noise. `difftrace calibrate` measures it on your own trusted runs and writes it into the
baseline; without that the default of the dtype holds. `logits` is the largest root mean square difference of the logits
of one step; a single score or log-confidence may differ by {SPREAD:g} times as much. Guidance (`cfg_scale`) multiplies
the last two by 1 + 2 × scale.
"""


def page() -> str:
    """Return the page."""
    meanings = _meanings()
    assert set(meanings) == set(_FIRST) == set(get_args(DivergenceClass)), "a class without its row"
    lines = [_HEAD]
    rows = [(f"`{name}`", prose(meanings[name]), _FIRST[name]) for name in get_args(DivergenceClass)]
    lines += table(("class", "meaning", "look at first"), rows)
    lines += [_POLICIES]
    judged: list[DivergenceClass | None] = [*get_args(DivergenceClass), None]
    lines += table(
        ("class", *(f"`{policy}`" for policy in POLICIES)),
        [(f"`{name or 'NONE'}`", *(_verdict(name, policy) for policy in POLICIES)) for name in judged],
    )
    lines += [_NEAR_TIE, _BUDGETS]
    budgets = [(f"`{dtype}`", f"{one.logits:.2g}", str(one.measured["basis"])) for dtype, one in DEFAULTS.items()]
    lines += table(("dtype", "logits", "where the default is from"), budgets)
    return "\n".join(lines)


def _meanings() -> dict[str, str]:
    found = re.findall(r"^- (\w+): (.+)$", classes.__doc__ or "", re.MULTILINE)
    return {name: f"{meaning[0].upper()}{meaning[1:]}." for name, meaning in found}


def _verdict(name: DivergenceClass | None, policy: Policy) -> str:
    """Return what the policy says where tokens and texts are equal, where only the texts are, where neither is."""
    ends = (Outcome("ORDER_ONLY", 0, 1, True), Outcome("TEXT", 1, 1, True), Outcome("TEXT", 1, 1, False))
    passes = [judge(_of_class(name, end), policy).passes for end in ends]
    return ("fails", "equal tokens", "equal texts", "passes")[sum(passes)]


def _of_class(name: DivergenceClass | None, outcome: Outcome) -> Classification:
    return Classification(name, "", None, None, None, None, (), None, None, (), outcome, ())
