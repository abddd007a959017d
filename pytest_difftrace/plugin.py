"""The plugin's hooks. Loaded into every pytest run, so it imports next to nothing; the fixtures load what they need."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from pytest_difftrace import (
    foreign,
    manifest,
    on_github,
    options,
    ranks,
    reporting,
    step_sampling,
    workers,
    writing,
)
from pytest_difftrace.fixtures import difftrace, llada
from pytest_difftrace.session import SESSION, Session

__all__ = ["difftrace", "llada"]

_MARKER = (
    "difftrace(model=None, revision=None, dtype=None, device=None): the model that the llada fixture runs in this test."
)


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Register options; an unknown scope is refused here because argparse says so less clearly."""
    config = pluginmanager.get_plugin("pytestconfig")
    if config is not None:
        options.refuse_unknown_scope(config.invocation_params.args)
    options.add_options(parser)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, object, object]:
    """Set what must precede torch where a mode is asked for; outermost, while pytest has not captured output yet."""
    if options.asks_for_mode(early_config):
        foreign.refuse()
        profile = options.profile(early_config, early_config.known_args_namespace)
        from pytest_difftrace import early

        early.start(early_config, profile)
    return (yield)


def pytest_configure(config: pytest.Config) -> None:
    """Resolve the settings; a recording session gets the hooks that run tests twice."""
    config.addinivalue_line("markers", _MARKER)
    settings = options.resolve(config)
    session = config.stash[SESSION] = Session(settings)
    config.pluginmanager.register(reporting.Tally(session), "difftrace-tally")
    config.pluginmanager.register(ranks.Lockstep(settings), "difftrace-ranks")
    collected = manifest.Manifest()
    config.pluginmanager.register(manifest.Collecting(collected), "difftrace-manifest")
    if writing.writes(config):
        config.pluginmanager.register(writing.Writing(config, session, collected), "difftrace-writing")
        if settings.html is not None:
            from pytest_difftrace.exploring import Exploring

            config.pluginmanager.register(Exploring(session), "difftrace-exploring")
        if on_github.applies():
            config.pluginmanager.register(on_github.OnGitHub(), "difftrace-on-github")
    if settings.explicit:
        foreign.refuse()
    if settings.mode == "record":
        from pytest_difftrace import recording

        config.pluginmanager.register(recording, "difftrace-recording")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of xdist what the controller has settled for all."""
    step_sampling.tell_worker(node.workerinput, node.config.stash[SESSION].settings.sampling)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """State an explicit mode."""
    settings = config.stash[SESSION].settings
    if not settings.explicit:
        return []
    from pytest_difftrace import early

    return reporting.header(settings, early.hash_seed_problem(config))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Group tests by model before xdist reads the groups."""
    if getattr(config.option, "loadgroup", False):
        workers.group_by_model(items, config.stash[SESSION].settings)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Send along what became of the checks."""
    report = yield
    reporting.annotate(item, call, report)
    return report
