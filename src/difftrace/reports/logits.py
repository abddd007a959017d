"""What the logits of two runs say where the runs first differ, as lines."""

from __future__ import annotations

from pathlib import Path

from difftrace.core.errors import FormatError, LogitsError
from difftrace.core.logits_difference import LogitsDifference, first_difference, logits_difference
from difftrace.core.logits_file import open_logits
from difftrace.core.logits_reference import RecordedLogits
from difftrace.core.recording import Baseline
from difftrace.core.side_logits import open_beside
from difftrace.core.text import printable
from difftrace.reports.columns import wrapped


def logits_lines(
    path: Path, golden: Baseline, observed: RecordedLogits | None, step: int | None, sequence: int | None
) -> list[str]:
    """Return the largest difference of the logits at `step`, or why it is not known; nothing for a baseline without.

    `golden` is the baseline in the file `path`, `observed` the logits of the run it is compared with. Where no step is
    known to tell the runs apart it is the first whose logits do.
    """
    if golden.logits is None:
        return []
    try:
        recorded = open_beside(path, golden.logits)
        if recorded is None:
            return _remark(f"{golden.logits.file} is not there, so exact differences are not known")
        if observed is None:
            return _remark("those of this run were not recorded, so exact differences are not known")
        other = open_logits(observed.path)
        place = first_difference(recorded, other) if step is None else (step, sequence or 0)
        if place is None:
            return []
        difference = logits_difference(recorded, other, *place)
    except (FormatError, LogitsError) as error:
        return _remark(f"not compared: {error}")
    return wrapped(_sentence(difference, golden.sequences[difference.sequence].trajectory.padding), "  ")


def _remark(text: str) -> list[str]:
    return wrapped(printable(f"logits: {text}"), "  ")


def _sentence(found: LogitsDifference, padding: int) -> str:
    if not found.differing:
        return f"logits at step {found.step}: all {found.compared} are equal"
    unconditional = ", unconditional" if found.number else ""
    within = f"; the files are exact to {found.within:g}" if found.within else ""
    return (
        f"logits at step {found.step}: {found.differing} of {found.compared} differ, by at most {found.largest:.6g}"
        f" (position {padding + found.position}, token {found.token}{unconditional}:"
        f" {found.golden:.6g} and {found.observed:.6g}){within}"
    )
