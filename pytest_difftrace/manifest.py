"""Which tests there are: all that were collected, and whether the session was to run all of them.

Under pytest-xdist the workers collect; each tells the controller what it found when it ends.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from pytest_difftrace.rooted import PLAIN, clean, from_root, nodeid_of, without_group
from pytest_difftrace.session import SESSION

# Attributes of the options that keep tests from being collected or run as usual, whatever they leave out.
_NARROWING: Final = {
    "lf": "--last-failed",
    "stepwise": "--stepwise",
    "ignore": "--ignore",
    "ignore_glob": "--ignore-glob",
    "pyargs": "--pyargs",
    "setuponly": "--setup-only",
    "setupplan": "--setup-plan",
}
_FILTERING: Final = {"keyword": "-k", "markexpr": "-m", "deselect": "--deselect"}
_OUTPUT: Final = "difftrace"


@dataclass
class Manifest:
    """What a session collected.

    Attributes:
        selected: node ids of the tests to run.
        deselected: node ids of those left out.
        exact: file and id of the tests of which the node id does not tell them.
        uncollected: node ids of what could not be collected.
    """

    selected: dict[str, None] = field(default_factory=dict)
    deselected: dict[str, None] = field(default_factory=dict)
    exact: dict[str, tuple[str, str]] = field(default_factory=dict)
    uncollected: dict[str, None] = field(default_factory=dict)
    _before: list[pytest.Item] = field(default_factory=list)

    def found(self, config: pytest.Config, items: Sequence[pytest.Item]) -> None:
        """Take down what was collected, before anything is deselected or renamed."""
        self._before = list(items)
        if getattr(config.option, "loadgroup", False):
            for item in items:
                item.stash[PLAIN] = item.nodeid

    def chosen(self, items: Sequence[pytest.Item]) -> None:
        """Take down what of that is going to run."""
        self.selected = dict.fromkeys(map(nodeid_of, items))
        self.deselected = dict.fromkeys(
            nodeid for nodeid in map(nodeid_of, self._before) if nodeid not in self.selected
        )

    def named(self, config: pytest.Config) -> None:
        """Find out which tests' node ids do not say where their baselines lie."""
        from pytest_difftrace.locations import test_id

        for item in self._before:
            nodeid = nodeid_of(item)
            true = (from_root(item.path, config), clean(test_id(item, None).id))
            if true != split(nodeid):
                self.exact[nodeid] = true

    def sent(self) -> dict[str, Any]:
        """Return what a worker sends to its controller."""
        return {
            "deselected": list(self.deselected),
            "exact": {nodeid: list(true) for nodeid, true in self.exact.items()},
            "uncollected": list(self.uncollected),
        }

    def received(self, sent: dict[str, Any]) -> None:
        """Take in what a worker sent; all workers collect the same."""
        self.deselected.update(dict.fromkeys(sent["deselected"]))
        self.exact.update({nodeid: (module, name) for nodeid, (module, name) in sent["exact"].items()})
        self.uncollected.update(dict.fromkeys(sent["uncollected"]))

    def place(self, nodeid: str) -> tuple[str, str]:
        """Return file and id of a test."""
        return self.exact.get(nodeid) or split(nodeid)


def split(nodeid: str) -> tuple[str, str]:
    """Return the file and "Class::test[param]" that a plain node id names."""
    module, _, name = nodeid.partition("::")
    return module, unicodedata.normalize("NFC", name) or module


def covers(config: pytest.Config) -> tuple[str, ...]:
    """Return the folders and files that tests are collected from."""
    started = config.invocation_params.dir
    named = (str(argument).partition("::")[0] for argument in config.args)
    return tuple(dict.fromkeys(from_root(started / name, config) for name in named))


def narrowed_by(config: pytest.Config, uncollected: Iterable[str]) -> tuple[str, ...]:
    """Return what kept tests from being collected."""
    found = _given(config, _NARROWING)
    if any("::" in str(argument) for argument in config.args):
        found.append("single tests named on the command line")
    return (*found, *(f"{clean(nodeid) or 'the suite'} could not be collected" for nodeid in uncollected))


def filtered_by(config: pytest.Config) -> tuple[str, ...]:
    """Return the options that choose among collected tests."""
    return tuple(_given(config, _FILTERING))


def _given(config: pytest.Config, options: dict[str, str]) -> list[str]:
    return [shown for name, shown in options.items() if getattr(config.option, name, None)]


def relation(start: Path, folder: Path, root: Path) -> str | None:
    """Return `folder` seen from `start`, with forward slashes; None where that names folders outside both `root`."""
    start, folder, root = (Path(os.path.realpath(path)) for path in (start, folder, root))
    if not folder.is_relative_to(start) and not (start.is_relative_to(root) and folder.is_relative_to(root)):
        return None
    return Path(os.path.relpath(folder, start)).as_posix()


class Collecting:
    """The hooks that fill a manifest, in every process that collects."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> Any:
        """See the tests before any plugin leaves some out."""
        self._manifest.found(config, items)
        return (yield)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note what could not be collected."""
        if report.failed:
            self._manifest.uncollected[report.nodeid] = None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """See the tests that are left."""
        self._manifest.chosen(session.items)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Send the manifest to the controller, if there is one."""
        output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
        known = session.config.stash[SESSION]
        if output is not None and (known.entries or known.settings.report is not None):
            self._manifest.named(session.config)
            output[_OUTPUT] = self._manifest.sent()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Take over what a worker is going to run."""
        self._manifest.selected.update(dict.fromkeys(map(plain_of_worker, ids)))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a worker that came to its end collected."""
        sent = getattr(node, "workeroutput", {}).get(_OUTPUT)
        if sent is not None:
            self._manifest.received(sent)


def plain_of_worker(nodeid: str) -> str:
    """Return the node id of a worker's test without its group."""
    return clean(without_group(nodeid))
