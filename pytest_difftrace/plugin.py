"""The plugin's hooks. Loaded into every pytest run, so it imports next to nothing; the fixtures load what they need."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_difftrace import foreign, options, reporting, workers
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


def pytest_configure(config: pytest.Config) -> None:
    """Resolve the settings; a recording session gets the hooks that run tests twice."""
    config.addinivalue_line("markers", _MARKER)
    settings = options.resolve(config)
    session = config.stash[SESSION] = Session(settings)
    config.pluginmanager.register(reporting.Tally(session), "difftrace-tally")
    if settings.explicit:
        problem = foreign.problem()
        if problem is not None:
            raise pytest.UsageError(problem)
    if settings.mode == "record":
        from pytest_difftrace import recording

        config.pluginmanager.register(recording, "difftrace-recording")


def pytest_report_header(config: pytest.Config) -> str | None:
    """State an explicit mode."""
    return reporting.header(config.stash[SESSION].settings)


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
