"""The model a test asks for: its marker, else the command line, else the ini file, else the embedded one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from pytest_difftrace.options import Settings


@dataclass(frozen=True)
class ModelRequest:
    """What to load; `model` is a folder's path or a hub id, None for the embedded reference model."""

    model: str | None = None
    revision: str | None = None
    dtype: str | None = None
    device: str | None = None


def requested_model(item: pytest.Item, settings: Settings) -> ModelRequest:
    """Return what the test `item` asks for.

    Every `difftrace` marker counts, the nearest first. Raises pytest.UsageError for one that is not understood.
    """
    allowed = [field.name for field in fields(ModelRequest)]
    asked: dict[str, str] = {}
    for mark in item.iter_markers("difftrace"):
        for name, value in mark.kwargs.items():
            if name not in allowed:
                raise pytest.UsageError(
                    f"@pytest.mark.difftrace has no {name}=; it takes {', '.join(f'{known}=' for known in allowed)}"
                )
            if value is not None:
                given = str(value)
                asked.setdefault(name, _path(given, item.path.parent) if name == "model" else given)
        if mark.args:
            raise pytest.UsageError(f"@pytest.mark.difftrace takes only keywords: write model={mark.args[0]!r}")
    if "model" not in asked and settings.model is not None:
        asked["model"] = _path(settings.model, settings.model_folder)
    return ModelRequest(**asked)


def _path(model: str, folder: Path) -> str:
    """Return the folder's path if `model` names one seen from `folder`, else `model`, which may be a hub id."""
    found = folder / Path(model).expanduser()
    return str(found) if found.is_dir() else model
