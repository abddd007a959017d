"""From checked inputs to outputs: environment, checks before the run, pytest, what it comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from difftrace.core.errors import DiffTraceError, FormatError
from difftrace.core.report_files import ReportFiles, open_report
from difftrace.core.text import printable
from pytest_difftrace.github import preflight, pytest_messages, pytest_run, runner
from pytest_difftrace.github.child_environment import for_pytest, profile_of, without_tokens
from pytest_difftrace.github.errors import ActionError
from pytest_difftrace.github.inputs import Inputs, parse
from pytest_difftrace.github.outcome import Outcome, exit_status, first_divergence, judge
from pytest_difftrace.github.prefetch import weight_bytes
from pytest_difftrace.github.preparation import workspace_of
from pytest_difftrace.github.recorded import copy_recorded, written
from pytest_difftrace.github.results_folder import RECORDED, links_of, results_folder
from pytest_difftrace.github.torch_build import examine


def verify_or_record(environment: Mapping[str, str], python: str, model: Path | None) -> int:
    """Run pytest as the inputs in `environment` ask for and return the action's exit status.

    `model` is the folder of the model that is asked for, None for the embedded one.

    Raises:
        DiffTraceError: nothing was run; see the message.
    """
    inputs = parse(environment)
    workspace = workspace_of(environment)
    results = results_folder(workspace, inputs.results_dir)
    torch = examine(python, without_tokens(environment)).torch
    profile = profile_of(inputs.profile, torch)
    wanted = for_pytest(environment, profile, summary=inputs.summary)
    known = pytest_run.known_options(python, wanted, workspace)
    if preflight.applies(profile):
        findings = preflight.check(profile, torch, wanted, Path("/"), weight_bytes(model))
        runner.annotate("warning", findings.warnings)
        if findings.errors:
            raise ActionError(*findings.errors)
    ended = pytest_run.run(pytest_run.command(python, inputs, results, known), wanted, workspace)
    runner.begin_line()
    return _conclude(environment, inputs, workspace, results, ended)


def _conclude(
    environment: Mapping[str, str], inputs: Inputs, workspace: Path, results: Path, ended: pytest_run.Ended
) -> int:
    links = links_of(workspace, results)
    if links:
        # They would be followed by what reads and uploads the folder.
        raise ActionError(f"the tests left symbolic links: {', '.join(map(printable, links[:3]))}")
    files = _report(results)
    junit = results / pytest_run.JUNIT
    failed, said = pytest_messages.failed_tests(junit), pytest_messages.explanation(ended.status, ended.said, junit)
    found = judge(ended.status, None if files is None else files.report, failed, said)
    if files is not None and inputs.mode == "record":
        found = _handed_on(found, files, results, workspace)
    runner.set_outputs(environment, outputs(found, inputs, workspace, results))
    if found.problem is not None:
        runner.annotate("error", [found.problem])
        if inputs.summary:
            runner.add_error_to_summary(environment, found.problem, found.failed_apart)
    return exit_status(found.result, fail_on_divergence=inputs.fail_on_divergence)


def _handed_on(found: Outcome, files: ReportFiles, results: Path, workspace: Path) -> Outcome:
    """Hand on what was recorded, but of a run that is an error; return the outcome with what is wrong with that."""
    if found.result != "error":
        try:
            copy_recorded(files, results, workspace)
        except DiffTraceError as error:
            return replace(found, result="error", problem=f"what was recorded cannot be handed on: {error}")
    elif count := len(written(files.report)):
        kept_back = (
            f"{count} recorded baseline{' is' if count == 1 else 's are'} not handed on in {RECORDED}/ therefore"
        )
        return replace(found, problem=f"{found.problem}; {kept_back}")
    return found


def outputs(found: Outcome, inputs: Inputs, workspace: Path, results: Path) -> dict[str, str]:
    """Return the outputs; paths are seen from the workspace, so that they hold in and outside a container."""

    def path(name: str) -> str:
        file = results / name
        return file.relative_to(workspace).as_posix() if file.is_file() else ""

    return {
        "result": found.result,
        "passed": str(found.passed),
        "diverged": str(found.diverged),
        "first-divergence": first_divergence(found.first),
        "report-json": path(pytest_run.REPORT),
        "report-html": path(pytest_run.HTML),
        "junit-xml": path(pytest_run.JUNIT),
        "platform-key": found.platform_key or inputs.platform_key,
        "results": results.relative_to(workspace).as_posix() if results.is_dir() else "",
    }


def _report(results: Path) -> ReportFiles | None:
    if not (results / pytest_run.REPORT).is_file():
        return None
    try:
        return open_report(results)
    except FormatError as error:
        raise ActionError(f"the report cannot be read: {printable(str(error))}") from None
