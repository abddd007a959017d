"""What one pytest session knows: its settings, the models it has loaded, and what became of the checks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import pytest

from pytest_difftrace.options import Settings
from pytest_difftrace.passes import Pass
from pytest_difftrace.platforms import Elsewhere

if TYPE_CHECKING:
    from difftrace.models import LoadedModel

Outcome = Literal[
    "unchanged",
    "new",
    "changed",
    "verified",
    "allowed",
    "diverged",
    "without baseline",
    "unreadable",
    "refused",
    "not reproducible",
    "not recorded (test failed)",
    "not recorded (test skipped)",
    "not recorded (cannot be repeated)",
    "not recorded (could not be written)",
    "skipped",
]

# What is worth a line at the end, with the number of checks it holds for; `pytest_difftrace.reporting` has the texts.
Remark = Literal["logits not reproducible", "budget dropped", "probes dropped"]

ModelKey = tuple[str, str | None, str, str]


@dataclass
class Session:
    """State of one pytest session; under xdist each worker and the controller have their own.

    Attributes:
        settings: what was asked for.
        models: the models loaded so far, by path or id, revision, dtype and device.
        outcomes: how often each outcome of a check was reported.
        workers: for each model that was not the embedded one, the workers that ran it.
        passes: the checks that passed although something differs.
        remarks: how often each remark was made.
        elsewhere: how many checks were verified against each kind of baseline that another platform recorded.
        scored: how many checks were verified by scoring canvases, by what that rests on.
    """

    settings: Settings
    models: dict[ModelKey, LoadedModel] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    workers: dict[str, set[str]] = field(default_factory=dict)
    elsewhere: Counter[Elsewhere] = field(default_factory=Counter)
    scored: Counter[str] = field(default_factory=Counter)
    passes: list[Pass] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)


@dataclass
class ItemNotes:
    """What one test leaves for the report of the phase it is in."""

    outcomes: list[Outcome] = field(default_factory=list)
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
