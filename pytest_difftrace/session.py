"""What one pytest session knows: its settings, the models it has loaded, and what became of the checks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from pytest_difftrace.options import Settings
from pytest_difftrace.passes import Pass
from pytest_difftrace.platforms import Elsewhere

if TYPE_CHECKING:
    from difftrace.models import LoadedModel

# What is worth a line at the end, with the number of checks it holds for; `pytest_difftrace.reporting` has the texts.
Remark = Literal["logits not reproducible", "budget dropped", "probes dropped", "decisions alone"]

# What became of a check as plain JSON: "check", its entry in a report, and "environment", where it ran or None.
Entry = dict[str, Any]

ModelKey = tuple[str, str | None, str, str]


@dataclass
class Session:
    """State of one pytest session; under xdist each worker and the controller have their own.

    Attributes:
        settings: what was asked for.
        models: the models loaded so far, by path or id, revision, dtype and device.
        entries: what became of each check, by its test's node id and its name.
        workers: for each model that was not the embedded one, the workers that ran it.
        passes: the checks that passed although something differs.
        remarks: how often each remark was made.
        problems: what could not be written, once each.
        report: the report as JSON, once it is written.
        results: the results folder, where the report is in it.
        elsewhere: how many checks were verified against each kind of baseline that another platform recorded.
        scored: how many checks were verified by scoring canvases, by what that rests on.
    """

    settings: Settings
    models: dict[ModelKey, LoadedModel] = field(default_factory=dict)
    entries: dict[tuple[str, str | None], Entry] = field(default_factory=dict)
    workers: dict[str, set[str]] = field(default_factory=dict)
    elsewhere: Counter[Elsewhere] = field(default_factory=Counter)
    scored: Counter[str] = field(default_factory=Counter)
    passes: list[Pass] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    report: bytes | None = None
    results: Path | None = None

    @property
    def outcomes(self) -> Counter[str]:
        """How many checks have each status."""
        return Counter(entry["check"]["status"] for entry in self.entries.values())


@dataclass
class ItemNotes:
    """What one test leaves for the report of the phase it is in."""

    entries: list[Entry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    elsewhere: list[Elsewhere] = field(default_factory=list)
    scored: list[str] = field(default_factory=list)
    passes: list[Pass] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)


SESSION = pytest.StashKey[Session]()
NOTES = pytest.StashKey[ItemNotes]()
# The model that a test's llada fixture runs.
LOADED = pytest.StashKey["LoadedModel"]()


def notes(item: pytest.Item) -> ItemNotes:
    """Return the notes of `item`, which its next report takes along."""
    return item.stash.setdefault(NOTES, ItemNotes())
