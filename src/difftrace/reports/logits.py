"""What the logits of two runs say where the runs first differ, as lines."""

from __future__ import annotations

from pathlib import Path

from difftrace.core.errors import FormatError, LogitsError
from difftrace.core.logits_difference import LogitsDifference, logits_difference
from difftrace.core.logits_file import open_logits
from difftrace.core.logits_reference import RecordedLogits
from difftrace.core.recording import Baseline
from difftrace.core.side_logits import open_beside
from difftrace.core.text import printable
from difftrace.reports.columns import wrapped


def logits_lines(
    path: Path, golden: Baseline, observed: RecordedLogits | None, step: int | None, sequence: int | None
) -> list[str]:
    """Return the largest difference of the logits at `step`, or why it is not known.

    `golden` is the baseline in the file `path`, `observed` the logits of the run it is compared with. Nothing for a
    baseline without logits, or runs that no step tells apart.
    """
    if golden.logits is None or step is None:
        return []
    try:
        recorded = open_beside(path, golden.logits)
        if recorded is None:
            text = f"logits: {printable(golden.logits.file)} is not there, so exact differences are not known"
        elif observed is None:
            text = "logits: those of this run were not recorded, so exact differences are not known"
        else:
            difference = logits_difference(recorded, open_logits(observed.path), step, sequence or 0)
            text = _sentence(difference, golden.sequences[sequence or 0].trajectory.padding)
    except (FormatError, LogitsError) as error:
        text = f"logits: not compared: {printable(str(error))}"
    return wrapped(text, "  ")


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
