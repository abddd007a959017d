"""Where the product keeps what it can always compute again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """Return the user's cache folder, which may not exist yet; None where the user has no home.

    `DIFFTRACE_CACHE_DIR` if set, else `difftrace` in `XDG_CACHE_HOME` (ignored unless absolute, as the XDG Base
    Directory Specification asks), else `~/.cache/difftrace`.
    """
    chosen = os.environ.get("DIFFTRACE_CACHE_DIR")
    if chosen:
        return Path(chosen)
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if shared.is_absolute():
        return shared / "difftrace"
    try:
        return Path.home() / ".cache" / "difftrace"
    except RuntimeError:
        return None
