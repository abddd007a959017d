"""How pytest and the hub are called, what is told to the runner, and what runs before anything is installed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_difftrace.github import pytest_run, runner
from pytest_difftrace.github.errors import ActionError
from pytest_difftrace.github.inputs import Inputs
from pytest_difftrace.github.prefetch import model_folder, weight_bytes

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PLAIN = Inputs(
    mode="verify",
    paths=(),
    pytest_args=(),
    model="",
    policy="",
    strategy="",
    fail_on="",
    platform_key="",
    profile="",
    python="python3",
    install="none",
    results_dir=".difftrace",
    upload_artifact=True,
    artifact_name="difftrace-results",
    fail_on_divergence=True,
    summary=True,
)


def fake(folder: Path, script: str) -> str:
    """Return a program that stands for the interpreter."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    return str(program)


def test_what_is_not_asked_for_is_not_given_to_pytest(tmp_path):
    words = pytest_run.command("python", PLAIN, tmp_path, "")
    assert words == [
        *("python", "-m", "pytest", "--difftrace-verify"),
        *(f"--difftrace-results={tmp_path}", f"--junitxml={tmp_path}/junit.xml"),
    ]


def test_every_input_becomes_an_option_and_the_workflows_own_come_last(tmp_path):
    asked = replace(
        PLAIN,
        mode="record",
        policy="near-tie",
        strategy="forced",
        fail_on="NEAR_TIE, DRIFT",
        platform_key="here",
        profile="cpu",
        model=f"a/b@{COMMIT}",
        pytest_args=("--difftrace-record=all", "-k", "a b"),
        paths=("tests/a b",),
    )
    words = pytest_run.command("python", asked, tmp_path, "  --difftrace-html=FILE")
    assert words[3] == "--difftrace-record"
    assert words[6:] == [
        f"--difftrace-html={tmp_path}/report.html",
        "--difftrace-policy=near-tie",
        "--difftrace-strategy=forced",
        "--difftrace-fail-on=NEAR_TIE,DRIFT",
        "--difftrace-platform-key=here",
        "--difftrace-profile=cpu",
        f"--difftrace-model=a/b@{COMMIT}",
        *("--difftrace-record=all", "-k", "a b", "tests/a b"),
    ]


def test_a_pytest_without_the_plugin_is_told_apart(tmp_path):
    python = fake(tmp_path, "echo 'No module named pytest' >&2; exit 1")
    with pytest.raises(ActionError, match=r"pytest has no DiffTrace \(No module named pytest\)"):
        pytest_run.known_options(python, {}, tmp_path)


def test_a_model_of_the_hub_is_fetched_at_its_commit(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/a.safetensors").write_bytes(bytes(100))
    python = fake(tmp_path, f'echo "$3 $4" > {tmp_path}/asked; echo progress; echo {tmp_path}/model')
    folder = model_folder(replace(PLAIN, model=f"a/b@{COMMIT}"), tmp_path, python, {"PATH": "/usr/bin:/bin"})
    assert folder == tmp_path / "model"
    assert (tmp_path / "asked").read_text() == f"a/b {COMMIT}\n"
    assert (weight_bytes(folder), weight_bytes(None)) == (100, 0)


def test_a_model_that_is_not_to_be_had_is_told_before_any_test_runs(tmp_path):
    (tmp_path / "models").mkdir()
    assert model_folder(PLAIN, tmp_path, "python", {}) is None
    assert model_folder(replace(PLAIN, model="models"), tmp_path, "python", {}) == tmp_path / "models"
    with pytest.raises(ActionError, match="input model: there is no such folder"):
        model_folder(replace(PLAIN, model="owner/model"), tmp_path, "python", {})
    with pytest.raises(ActionError, match="input model: it could not be fetched"):
        model_folder(replace(PLAIN, model=f"a/b@{COMMIT}"), tmp_path, fake(tmp_path, "exit 1"), {})


def test_no_value_of_an_output_can_set_another(tmp_path):
    file = tmp_path / "outputs"
    runner.set_outputs({"GITHUB_OUTPUT": str(file)}, {"first": "a\nend\nresult=pass\nresult<<end\npass\nend", "b": ""})
    lines = file.read_text(encoding="utf-8").splitlines()
    ends = [line.partition("<<")[2] for line in (lines[0], lines[-3])]
    assert lines[-3].startswith("b<<")
    assert len(set(ends)) == 2
    assert lines.index(ends[0]) == len(lines) - 4
    assert lines[-2:] == ["", ends[1]]


def test_at_most_ten_annotations_are_made_each_on_its_line(capsys):
    runner.annotate("error", [f"one\n::error::{index}%" for index in range(12)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[0] == "::error title=DiffTrace::one\\n::error::0%25"
    assert lines[-1] == "::error title=DiffTrace::3 more"


def test_what_comes_before_the_installation_needs_nothing_but_pythons_own_library():
    modules = ("__main__", "inputs", "installation", "child_environment", "results_folder", "runner", "torch_build")
    code = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'src')!r}]\n" + "\n".join(
        f"import pytest_difftrace.github.{name}" for name in modules
    )
    # Isolated and without site: no package is to be seen.
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
