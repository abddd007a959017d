"""PyPI knows an unrelated project under the import name `difftrace`: is it the one Python finds here?"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

_OURS = '__distribution__ = "pytest-difftrace"'


def refuse() -> None:
    """Raise pytest.UsageError if `import difftrace` would give another package than ours."""
    text = problem()
    if text is not None:
        raise pytest.UsageError(text)


def problem() -> str | None:
    """Return one line saying that `import difftrace` would give another package than ours, or None if it is ours.

    The package is not imported to find out: the foreign one may be heavy or broken.
    """
    loaded = sys.modules.get("difftrace")
    if loaded is not None:
        origin = getattr(loaded, "__file__", None)
        ours = getattr(loaded, "__distribution__", None) == "pytest-difftrace"
    else:
        spec = find_spec("difftrace")
        origin = spec.origin if spec is not None else None
        ours = origin is not None and _OURS in Path(origin).read_text(encoding="utf-8", errors="replace")
    if ours:
        return None
    return (
        "difftrace: Python finds another package of that name, not that of pytest-difftrace:"
        f" {origin or 'a folder without __init__.py'}; run `pip uninstall difftrace`, then"
        " `pip install --force-reinstall --no-deps pytest-difftrace`"
    )
