"""What mkdocs is told beside mkdocs.yml."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Leave pages out of the navigation that are not there."""
    config.nav = _there(config.nav, Path(config.docs_dir))
    return config


def _there(entries: list[Any], docs: Path) -> list[Any]:
    found = []
    for entry in entries:
        (title, target) = next(iter(entry.items()))
        below = _there(target, docs) if isinstance(target, list) else target
        if below if isinstance(below, list) else (docs / below).is_file():
            found.append({title: below})
    return found
