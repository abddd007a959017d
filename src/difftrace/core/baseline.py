"""The baseline: a recorded run as a small, reviewed JSON file beside its test."""

from __future__ import annotations

import os
from pathlib import Path

from difftrace.core.atomic import write_atomically
from difftrace.core.baseline_json import dump, parse, problems
from difftrace.core.errors import FormatError
from difftrace.core.file_format import read_file
from difftrace.core.limits import MAX_BASELINE_BYTES
from difftrace.core.recording import (
    Baseline,
    Budget,
    JsonScalar,
    ModelIdentity,
    ProbeStep,
    SamplerIdentity,
    SequenceRecord,
    TestId,
)
from difftrace.core.text import printable

__all__ = [
    "Baseline",
    "Budget",
    "JsonScalar",
    "ModelIdentity",
    "ProbeStep",
    "SamplerIdentity",
    "SequenceRecord",
    "TestId",
    "dump",
    "load",
    "parse",
    "problems_of",
    "save",
]


def load(path: str | os.PathLike[str]) -> Baseline:
    """Return the baseline in the file `path`.

    Raises:
        FormatError: one line naming the file and the field, also if it cannot be read.
    """
    return parse(*read_file(path, MAX_BASELINE_BYTES))


def problems_of(path: str | os.PathLike[str]) -> list[str]:
    """Return a line for every problem of the file `path`; none if `load` would return a baseline."""
    try:
        return problems(*read_file(path, MAX_BASELINE_BYTES))
    except FormatError as error:
        return [str(error)]


def save(path: str | os.PathLike[str], baseline: Baseline) -> None:
    """Write `baseline` to the file `path` as a whole or not at all, creating missing folders.

    Raises:
        WriteError: it could not be written; a file that was there before is whole.
        FormatError: `baseline` holds something that could not be read back; nothing was written.
    """
    write_atomically(path, dump(baseline, printable(str(Path(path)))))
