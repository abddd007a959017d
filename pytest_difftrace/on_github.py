"""On a runner of GitHub: annotations at the failed checks, and a summary of the job."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_difftrace.session import SESSION

if TYPE_CHECKING:
    from difftrace.core.report import Report

_OTHER_PLUGIN: Final = "pytest_github_actions_annotate_failures"


def applies() -> bool:
    """Return whether this is such a runner."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def project_of(root: Path) -> Path:
    """Return the runner's workspace where it has pytest's root folder in it, else that folder."""
    workspace = os.environ.get("GITHUB_WORKSPACE") if applies() else None
    return Path(workspace) if workspace and root.is_relative_to(workspace) else root


class OnGitHub:
    """The hooks, of the process that writes the report."""

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        """Print the annotations, and append to the job's summary."""
        session = config.stash[SESSION]
        if session.report is None or not session.entries:
            return
        from difftrace.core.report import parse

        report = parse(session.report, "report")
        if not _annotated_by_another(config):
            from difftrace.reports.github import annotation_lines

            terminalreporter.ensure_newline()
            for line in annotation_lines(report.checks, lambda file: _in_repository(file, config)):
                terminalreporter.write_line(line)
        problem = _append_summary(report, config)
        if problem is not None:
            terminalreporter.write_line(f"difftrace: job summary not written: {problem}", yellow=True)


def _annotated_by_another(config: pytest.Config) -> bool:
    manager = config.pluginmanager
    names = {name for name, plugin in manager.list_name_plugin() if plugin is not None}
    return any(name.startswith(_OTHER_PLUGIN) for name in names)


def _in_repository(file: str, config: pytest.Config) -> str:
    """Return a path seen from pytest's root folder as seen from the repository's."""
    workspace = os.environ.get("GITHUB_WORKSPACE")
    if workspace:
        seen = os.path.relpath(config.rootpath / file, workspace)
        if not seen.startswith(os.pardir):
            return Path(seen).as_posix()
    return file


def _append_summary(report: Report, config: pytest.Config) -> str | None:
    """Append to the summary what there is room for; return what went wrong."""
    name = os.environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        return None
    from difftrace.core.text import printable
    from difftrace.reports.job_summary import room
    from difftrace.reports.markdown import report_markdown
    from pytest_difftrace.next_steps import accept_command

    path = Path(name)
    try:
        text = report_markdown(report, room(path), accept_command(config, "FOLDER"))
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        return printable(error.strerror or str(error))
    return None
