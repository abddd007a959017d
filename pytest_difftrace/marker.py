"""The model a test asks for: its marker, else the command line, else the ini file, else the embedded one."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import pytest

from pytest_difftrace.options import Settings

_PINNED: Final = re.compile(r"([^/@]+/[^/@]+)@([0-9a-f]{40})")


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
        model, revision = _pinned(settings.model)
        asked["model"] = _path(model, settings.model_folder)
        if revision is not None:
            asked.setdefault("revision", revision)
    return ModelRequest(**asked)


def _pinned(model: str) -> tuple[str, str | None]:
    """Return model and revision of `owner/name@<40-hex commit>`; anything else has no revision."""
    found = _PINNED.fullmatch(model)
    return (found[1], found[2]) if found else (model, None)


def _path(model: str, folder: Path) -> str:
    """Return the folder's path if `model` names one seen from `folder`, else `model`, which may be a hub id."""
    found = folder / Path(model).expanduser()
    return str(found) if found.is_dir() else model
