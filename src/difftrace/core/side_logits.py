"""The file of logits beside a baseline: found, held against the baseline's reference, put there."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from difftrace.core.atomic import open_atomically
from difftrace.core.errors import FormatError, WriteError
from difftrace.core.logits_file import LogitsFile, open_logits
from difftrace.core.logits_reference import LogitsReference, RecordedLogits, side_file
from difftrace.core.text import printable


def open_beside(baseline: Path, reference: LogitsReference) -> LogitsFile | None:
    """Return the file that the baseline in the file `baseline` refers to; None where it is not there.

    That costs as much as reading its index: its content is checked when it is read.

    Raises:
        FormatError: it is no complete file of logits, or not the one that is referred to.
    """
    path = baseline.with_name(reference.file)
    if not path.exists():
        return None
    found = open_logits(path)
    if found.digest != reference.digest:
        raise FormatError(
            f"{printable(str(path))}: holds other logits ({found.digest[:19]}…) than {printable(baseline.name)} was "
            f"recorded with ({reference.digest[:19]}…): put the file back that belongs to it, or delete it"
        )
    return found


def put_beside(baseline: Path, recorded: RecordedLogits) -> None:
    """Copy `recorded` to where the baseline in the file `baseline` refers to it, as a whole or not at all.

    Raises:
        WriteError: it could not be written; a file that was there before is whole.
    """
    target = side_file(baseline)
    try:
        source = recorded.path.open("rb")
    except OSError as error:
        problem = f"{printable(str(recorded.path))}: cannot be read ({printable(str(error))})"
        raise WriteError(f"{printable(str(target))}: could not be written, for {problem}") from error
    with source, open_atomically(target) as file:
        shutil.copyfileobj(source, file, 1 << 20)


def remove_beside(baseline: Path) -> None:
    """Delete the logits that `put_beside` put there, which nothing refers to any more; one that stays does no harm."""
    with contextlib.suppress(OSError):
        side_file(baseline).unlink(missing_ok=True)


def lies_beside(baseline: Path, reference: LogitsReference) -> bool:
    """Return whether the file that `reference` names is there, and the right one."""
    try:
        return open_beside(baseline, reference) is not None
    except FormatError:
        return False
