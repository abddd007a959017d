"""action.yml and the workflows: what they forward, interpolate, pin and permit; tools that know them agree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

import difftrace
from pytest_difftrace.github.inputs import PREFIX, Inputs

ROOT = Path(__file__).resolve().parents[2]
ACTION = ROOT / "action.yml"
OWN = sorted((ROOT / ".github/workflows").glob("*.yml"))
EXAMPLES = sorted((ROOT / "examples/workflows").glob("*.yml"))
WORKFLOWS = [*OWN, *EXAMPLES]
EXPRESSION = re.compile(r"\$\{\{.*?\}\}", re.DOTALL)


def document(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return found


def steps(file: Path) -> Iterator[dict[str, Any]]:
    found = document(file)
    if "runs" in found:
        yield from found["runs"]["steps"]
    for job in found.get("jobs", {}).values():
        yield from job["steps"]


@pytest.fixture(params=[ACTION, *WORKFLOWS], ids=lambda file: file.name)
def any_file(request: pytest.FixtureRequest) -> Path:
    file: Path = request.param
    return file


@pytest.fixture(params=WORKFLOWS, ids=lambda file: file.name)
def workflow(request: pytest.FixtureRequest) -> Path:
    file: Path = request.param
    return file


def test_every_input_is_forwarded_and_understood():
    action = document(ACTION)
    [run] = [step for step in steps(ACTION) if step.get("id") == "run"]
    forwarded = {name: value for name, value in run["env"].items() if name.startswith(PREFIX)}
    assert forwarded == {
        PREFIX + name.upper().replace("-", "_"): f"${{{{ inputs.{name} }}}}" for name in action["inputs"]
    }
    assert [field.name.replace("_", "-") for field in fields(Inputs)] == list(action["inputs"])


def test_every_input_and_output_is_described_in_the_action_and_its_document():
    action = document(ACTION)
    text = (ROOT / "docs/action.md").read_text(encoding="utf-8")
    for kind in ("inputs", "outputs"):
        for name, told in action[kind].items():
            assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)
            assert told["description"].strip()
            assert f"| `{name}` |" in text
    assert re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE) == [*action["inputs"], *action["outputs"]]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## In GitHub Actions")[2].partition("\n## ")[0]
    names = re.findall(r"`([a-z]+(?:-[a-z]+)*)`", section.partition("Inputs:")[2])
    assert names == [*action["inputs"], *action["outputs"]]
    assert all(isinstance(told["default"], str) for told in action["inputs"].values())


@pytest.mark.parametrize(
    ("named", "shown"),
    [
        ("no-such-python", "no-such-python"),
        ("a\n::error::b%0A`c`<i>$(touch x)", "a???error??b?0A?c??i???touch x?"),
        ("/" * 100, "/" * 80),
    ],
)
def test_a_python_that_is_none_is_said_before_anything_runs(tmp_path, named, shown):
    [run] = [step["run"] for step in steps(ACTION) if step.get("id") == "run"]
    environment = {
        "PATH": os.environ["PATH"],
        "DIFFTRACE_INPUT_PYTHON": named,
        "DIFFTRACE_INPUT_SUMMARY": "true",
        "GITHUB_ACTION_PATH": str(ROOT),
        "GITHUB_OUTPUT": str(tmp_path / "output"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
    }
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", run],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    problem = f"input python: it takes an interpreter of Python 3.10 or newer, not '{shown}'"
    assert done.returncode == 2
    assert done.stdout == f"::error title=DiffTrace::{problem}\n"
    assert done.stderr
    assert (tmp_path / "output").read_text(encoding="utf-8").split() == ["result=error", "passed=0", "diverged=0"]
    assert problem in (tmp_path / "summary").read_text(encoding="utf-8")


def test_nothing_is_interpolated_into_a_script(any_file):
    for step in steps(any_file):
        assert not EXPRESSION.search(step.get("run", "")), step


def test_no_script_changes_the_environment_of_later_steps(any_file):
    assert not re.search(r"GITHUB_ENV|GITHUB_PATH", any_file.read_text(encoding="utf-8"))


def test_every_third_party_action_is_pinned_by_commit_with_its_version_beside_it(any_file):
    for line in any_file.read_text(encoding="utf-8").splitlines():
        used = re.search(r"uses: (\S+)(.*)", line)
        if used and not used[1].startswith("./"):
            assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", used[1]), line
            assert re.fullmatch(r" # (v\d+\.\d+\.\d+|put the commit .*)", used[2]), line


def test_an_example_installs_the_version_that_it_is_part_of(any_file):
    for script in (step.get("run", "") for step in steps(any_file)):
        for requirement in re.findall(r"pip install.*\b(pytest-difftrace\S*)", script):
            assert requirement == f"pytest-difftrace=={difftrace.__version__}"


def test_one_action_has_one_pin_everywhere():
    pins: dict[str, set[str]] = {}
    for file in (ACTION, *WORKFLOWS):
        for name, pin in re.findall(r"uses: ([\w./-]+)@([0-9a-f]{40})", file.read_text(encoding="utf-8")):
            pins.setdefault(name, set()).add(pin)
    assert {name: len(found) for name, found in pins.items()} == dict.fromkeys(pins, 1)


def test_workflows_start_without_permissions_and_every_job_says_what_it_needs_and_how_long(workflow):
    found = document(workflow)
    assert found["permissions"] == {}
    assert "concurrency" in found
    for job in found["jobs"].values():
        assert job["permissions"]
        assert job["timeout-minutes"] <= 120
    for step in steps(workflow):
        if "actions/checkout@" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False


def test_pull_requests_of_forks_never_reach_a_self_hosted_runner(workflow):
    found = document(workflow)
    triggers = found[True]  # YAML 1.1 reads the key `on` so
    assert "pull_request_target" not in triggers
    for job in found["jobs"].values():
        if "self-hosted" in str(job["runs-on"]) and "pull_request" in triggers:
            assert "github.event.pull_request.head.repo.full_name == github.repository" in job["if"]
        elif "vars." in str(job["runs-on"]) and "pull_request" in triggers:
            # The variable may name a machine of one's own.
            assert "!github.event.pull_request.head.repo.fork && vars." in job["runs-on"]


def test_the_job_that_may_write_runs_no_test():
    jobs = document(ROOT / "examples/workflows/rerecord.yml")["jobs"]
    assert jobs["record"]["permissions"] == {"contents": "read"}
    assert jobs["propose"]["permissions"] == {"contents": "write", "pull-requests": "write"}
    for step in jobs["propose"]["steps"]:
        assert "difftrace-action" not in step.get("uses", "")
        assert not re.search(r"\bpytest( |$)", step.get("run", ""))
        if "run" in step:
            assert step["working-directory"] == "${{ runner.temp }}"


def test_the_pull_request_has_the_baselines_of_every_folder_and_nothing_else(tmp_path):
    steps_of_job = document(ROOT / "examples/workflows/rerecord.yml")["jobs"]["propose"]["steps"]
    [paths] = [step["with"]["add-paths"] for step in steps_of_job if "add-paths" in step.get("with", {})]
    wanted = [f"{folder}__difftrace__/test_x/a.{end}" for folder in ("", "a/", "a/b c/") for end in ("json", "logits")]
    for name in (*wanted, "test_x.py", "a/b.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    git = ["git", "-C", str(tmp_path), "-c", "core.quotePath=false"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "--", paths], check=True)  # as the action does for each of its paths
    staged = subprocess.run([*git, "ls-files"], check=True, capture_output=True, text=True).stdout
    assert sorted(staged.splitlines()) == sorted(wanted)


def tool(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{name} is not installed; it is in the development dependencies")
    return found


def assert_clean(*command: str | Path) -> None:
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_schemas_of_github_have_no_objection():
    assert_clean(tool("check-jsonschema"), "--builtin-schema", "vendor.github-actions", ACTION)
    assert_clean(tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)


def test_actionlint_has_no_objection():
    assert_clean(tool("actionlint"), "-shellcheck", tool("shellcheck"), "-pyflakes=", *WORKFLOWS)


def test_zizmor_has_no_objection():
    assert_clean(tool("zizmor"), "--offline", "--no-progress", "--no-config", ACTION, *WORKFLOWS)


def test_shellcheck_has_no_objection_to_any_script(tmp_path):
    scripts = []
    for file in (ACTION, *WORKFLOWS):
        for number, step in enumerate(steps(file)):
            if "run" in step:
                script = tmp_path / f"{file.stem}-{number}.sh"
                # What GitHub starts a step's bash with.
                script.write_text(f"#!/usr/bin/env bash\nset -eo pipefail\n{step['run']}", encoding="utf-8")
                scripts.append(script)
    assert len(scripts) > 5
    assert_clean(tool("shellcheck"), *scripts)
