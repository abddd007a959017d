"""Which steps teacher-forced verification found to diverge, as a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import Final

from difftrace.core.forced import ForcedVerdict

_COLUMNS: Final = 100
_MOST_RANGES: Final = 20


def divergent_steps_lines(verdict: ForcedVerdict) -> list[str]:
    """Return "5 of 64 steps diverge: 5, 9-12; …" in at most three lines of at most 100 columns."""
    sample = verdict.sample
    total = f"{verdict.num_steps} steps"
    if sample is not None:
        total = f"the {len(sample.steps)} steps chosen at random of {verdict.num_steps} (seed {sample.seed})"
    found = list(dict.fromkeys(one.step for one in verdict.divergent))
    diverge = "diverges" if len(found) == 1 else "diverge"
    told = f"{len(found)} of {total} {diverge}: {ranges(found)}" if found else f"none of {total} diverges"
    how = "each scored as recorded"
    if not verdict.exact or verdict.rescored:
        how = f"scored in batches of {verdict.batch}, those that differed again as recorded"
    beyond = verdict.beyond_noise
    logits = f"; logits beyond noise at step {beyond[0].step}" if beyond and not found else ""
    return wrap(f"{told}{logits}; {how}", _COLUMNS, subsequent_indent="  ")


def ranges(steps: Sequence[int]) -> str:
    """Return "5, 9-12" for ascending steps; "none" where there is none."""
    found: list[list[int]] = []
    for step in steps:
        if found and found[-1][-1] == step - 1:
            found[-1][1:] = [step]
        else:
            found.append([step])
    shown = ["-".join(map(str, one)) for one in found[:_MOST_RANGES]]
    if len(found) > _MOST_RANGES:
        shown.append(f"… ({len(steps)} in all)")
    return ", ".join(shown) or "none"
