"""How much a job's summary on GitHub still takes. Needs nothing but Python."""

from __future__ import annotations

from pathlib import Path
from typing import Final

LIMIT: Final = 1 << 20
"""What GitHub takes of one step's summary, in bytes; of one that is longer it shows nothing."""


def room(file: Path) -> int:
    """Return how many bytes more the summary in `file`, which need not be there yet, may get.

    Raises:
        OSError: the file cannot be looked at.
    """
    return LIMIT - (file.stat().st_size if file.exists() else 0)
