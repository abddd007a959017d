"""How pytest and the hub are called, what is told to the runner, and what runs before anything is installed."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_difftrace.github import pytest_run, runner
from pytest_difftrace.github.__main__ import main
from pytest_difftrace.github.child_environment import ORIGINAL_PYTHONPATH, for_fetch
from pytest_difftrace.github.errors import ActionError
from pytest_difftrace.github.inputs import PREFIX, Inputs
from pytest_difftrace.github.prefetch import model_folder, weight_bytes
from pytest_difftrace.github.preparation import prepared
from pytest_difftrace.github.pytest_messages import explanation

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
    without_plugin = fake(tmp_path, "echo usage; echo '(shown in full)'")
    with pytest.raises(ActionError, match=r"pytest has no DiffTrace \(its plugin is not installed for .*/python\)"):
        pytest_run.known_options(without_plugin, {}, tmp_path)


def test_a_model_of_the_hub_is_fetched_at_its_commit(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/a.safetensors").write_bytes(bytes(100))
    python = fake(tmp_path, f'echo "$3 $4" > {tmp_path}/asked; echo progress; echo {tmp_path}/model')
    asked = replace(PLAIN, model=f"a/b@{COMMIT}")
    folder = model_folder(asked, tmp_path, python, {"PATH": "/usr/bin:/bin"}, tmp_path)
    assert folder == tmp_path / "model"
    assert (tmp_path / "asked").read_text() == f"a/b {COMMIT}\n"
    assert (weight_bytes(folder), weight_bytes(None)) == (100, 0)


def test_a_model_that_is_not_to_be_had_is_told_before_any_test_runs(tmp_path):
    (tmp_path / "models").mkdir()
    assert model_folder(PLAIN, tmp_path, "python", {}, tmp_path) is None
    assert model_folder(replace(PLAIN, model="models"), tmp_path, "python", {}, tmp_path) == tmp_path / "models"
    with pytest.raises(ActionError, match="input model: there is no such folder"):
        model_folder(replace(PLAIN, model="owner/model"), tmp_path, "python", {}, tmp_path)
    asked = replace(PLAIN, model=f"a/b@{COMMIT}")
    with pytest.raises(ActionError, match="input model: it could not be fetched"):
        model_folder(asked, tmp_path, fake(tmp_path, "exit 1"), {}, tmp_path)
    without_modules = fake(tmp_path, f'exec {sys.executable} -I -S "$@"')
    with pytest.raises(ActionError, match=r"pytest has no DiffTrace \(No module named 'difftrace'\): set the input"):
        model_folder(asked, tmp_path, without_modules, {}, tmp_path)


def test_no_code_of_the_checkout_sees_the_token_that_a_model_is_fetched_with(tmp_path, monkeypatch):
    source, workspace = tmp_path / "source", tmp_path / "workspace"
    for package in ("models", "core"):
        (source / "src/difftrace" / package).mkdir(parents=True)
        (source / "src/difftrace" / package / "__init__.py").touch()
    (source / "src/difftrace/__init__.py").touch()
    (source / "src/difftrace/core/errors.py").write_text("class DiffTraceError(Exception): pass\n", encoding="utf-8")
    (source / "src/difftrace/models/hub.py").write_text(
        "import os\ntry: import huggingface_hub\nexcept ImportError: pass\n"
        "def snapshot(name, revision): return os.environ['HF_TOKEN'] + os.environ.get('GITHUB_TOKEN', '')\n",
        encoding="utf-8",
    )
    workspace.mkdir()
    for name in ("huggingface_hub.py", "difftrace.py", "sitecustomize.py"):
        (workspace / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write(__name__)\n", encoding="utf-8")
    monkeypatch.chdir(workspace)
    job = {"HF_TOKEN": "hf_secret", "GITHUB_TOKEN": "ghs_secret", "PYTHONPATH": "/action", "PATH": os.environ["PATH"]}
    environment = for_fetch({**job, ORIGINAL_PYTHONPATH: str(workspace)}, source)
    folder = model_folder(replace(PLAIN, model=f"a/b@{COMMIT}"), workspace, sys.executable, environment, source)
    assert folder == Path("hf_secret")
    assert not (tmp_path / "ran").exists()


def test_no_code_of_the_checkout_runs_while_the_plugin_is_installed(tmp_path, monkeypatch):
    """The interpreter imports sitecustomize of its import path, as any does; it has no venv."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "sitecustomize.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a')\n", encoding="utf-8")
    python = shlex.quote(sys.executable)
    started = fake(tmp_path, f'if [ "$2" = venv ]; then {python} -c ""; exit 1; fi; exec {python} "$@"')
    monkeypatch.setattr(sys, "executable", started)
    inputs = {"MODE": "verify", "INSTALL": "auto", "PYTHON": "python3", "RESULTS_DIR": "out", "ARTIFACT_NAME": "a"}
    flags = dict.fromkeys(("UPLOAD_ARTIFACT", "FAIL_ON_DIVERGENCE", "SUMMARY"), "true")
    environment = {
        **{PREFIX + name: value for name, value in (inputs | flags).items()},
        "PATH": os.environ["PATH"],
        "HF_TOKEN": "hf_secret",
        "GITHUB_WORKSPACE": str(checkout),
        "RUNNER_TEMP": str(tmp_path / "temp"),
        "PYTHONPATH": "/action",
        ORIGINAL_PYTHONPATH: str(checkout),
    }
    with pytest.raises(ActionError, match="no virtual environment could be made"):
        prepared(environment)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_ends_the_action_ends_pytest_too(tmp_path, monkeypatch, number):
    # The alarm ends a process that waits in vain.
    code = (
        "import os, signal, sys\n"
        f"signal.signal({number:d}, lambda *_: sys.exit(7))\n"
        f"signal.alarm(30); os.kill(os.getppid(), {number:d}); signal.pause()\n"
    )
    before = signal.getsignal(number)
    assert pytest_run.run([sys.executable, "-S", "-c", code], os.environ, tmp_path).status == 7
    assert signal.getsignal(number) is before


def test_what_pytest_writes_to_standard_error_is_passed_on_and_kept(tmp_path, capfdbinary):
    code = "import sys; sys.stderr.write('x' * 100_000 + 'ERROR: why'); sys.exit(4)"
    ended = pytest_run.run([sys.executable, "-S", "-c", code], os.environ, tmp_path)
    assert ended.status == 4
    assert ended.said.endswith("xxxERROR: why")
    assert capfdbinary.readouterr().err == b"x" * 100_000 + b"ERROR: why"


@pytest.mark.parametrize(
    ("said", "explained"),
    [
        ("ERROR: file or directory not found: nowhere\n\n", "settings: file or directory not found: nowhere"),
        (
            "ERROR: usage: pytest [options]\npython -m pytest: error: unrecognized arguments: --no\n  inifile: x\n",
            "settings: unrecognized arguments: --no",
        ),
        (
            "ImportError while loading conftest '/w/conftest.py'.\nE   ModuleNotFoundError: No module named 'no'\n",
            "/w/conftest.py could not be imported: ModuleNotFoundError: No module named 'no'",
        ),
    ],
)
def test_what_pytest_refused_is_quoted(tmp_path, said, explained):
    found = explanation(4, said, tmp_path / "none")
    assert found is not None
    assert found.endswith(explained)
    assert explanation(1, said, tmp_path / "none") is None


def test_a_refusal_without_a_reason_and_a_long_one_are_no_trouble(tmp_path):
    assert explanation(4, "nothing\n", tmp_path) is None
    told = explanation(4, "ERROR: " + "\x1b" * 9000, tmp_path)
    assert told is not None
    assert told.isprintable()
    assert len(told) <= 500


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """Files of a runner; the handler of SIGTERM is put back."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "outputs"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    monkeypatch.delenv("DIFFTRACE_INPUT_SUMMARY", raising=False)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_preparation_is_told_in_outputs_and_summary(outputs, monkeypatch, capsys, number):
    monkeypatch.setattr("pytest_difftrace.github.__main__.prepared", lambda _: signal.raise_signal(number))
    assert main([]) == 2
    assert capsys.readouterr().out == "::error title=DiffTrace::the step was cancelled\n"
    assert "error" in (outputs / "outputs").read_text(encoding="utf-8").splitlines()
    assert "the step was cancelled" in (outputs / "summary").read_text(encoding="utf-8")


def test_an_interpreter_without_the_requirements_is_told_what_to_do(outputs, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pytest_difftrace.github.verification", None)
    assert main(["run"]) == 2
    told = capsys.readouterr().out
    assert told.startswith("::error title=DiffTrace::pytest has no DiffTrace (")
    assert "set the input install to auto" in told
    (outputs / "summary").unlink()
    monkeypatch.setenv("DIFFTRACE_INPUT_SUMMARY", "false")
    assert main(["run"]) == 2
    assert not (outputs / "summary").exists()


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
    paths = [str(ROOT), str(ROOT / "src")]
    code = f"import sys; sys.path[:0] = {paths!r}\nimport pytest_difftrace.github.__main__"
    # Isolated and without site: no package is to be seen.
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
