"""The composite action as a workflow runs it: outputs, exit status, annotations, summary, uploads."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from difftrace.core.baseline import load
from difftrace.core.report import load as load_report

PRELUDE = """
import os
import sys
from pathlib import Path
from difftrace import Trajectory

def traj(*tokens):
    count = len(tokens)
    return Trajectory(prompt=[1, 2], initial=[1, 2] + [99] * count, steps=list(range(count)),
                      positions=list(range(2, 2 + count)), tokens=list(tokens), num_steps=count)
"""
# A step after the one that recorded sees another token.
CHANGES = """
def test_a(difftrace):
    recorded = Path(__file__).with_name("__difftrace__").exists()
    difftrace.check(traj(3, 5 if recorded else 4))
"""
INJECTION = '"; touch pwned; $(touch pwned)'


def write(repository: Path, body: str, name: str = "test_x.py") -> Path:
    file = repository / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(PRELUDE + body, encoding="utf-8")
    return file


def test_recorded_runs_verify_in_the_next_step_and_are_uploaded(repository, run_job):
    write(repository, "def test_a(difftrace): difftrace.check(traj(3, 4))\n")
    (repository / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    (repository / "python").chmod(0o755)
    job = run_job({"record": {"mode": "record", "artifact-name": "recorded"}, "verify": {"python": "./python"}})
    assert job.succeeded
    record, verify = job.steps["record"], job.steps["verify"]
    assert (record.outcome, record.outputs["result"], record.outputs["passed"]) == ("success", "pass", "1")
    assert (verify.outcome, verify.outputs["result"], verify.outputs["passed"]) == ("success", "pass", "1")
    assert (verify.outputs["diverged"], verify.outputs["first-divergence"]) == ("0", "")
    assert verify.outputs["report-json"] == ".difftrace/report.json"
    assert verify.outputs["report-html"] == ".difftrace/report.html"
    assert verify.outputs["junit-xml"] == ".difftrace/junit.xml"
    assert verify.outputs["artifact-url"].endswith("/difftrace-results")
    baseline = job.workspace / "__difftrace__/test_x/test_a.json"
    assert load(baseline).test is not None
    assert (job.uploads / "recorded/recorded/__difftrace__/test_x/test_a.json").read_bytes() == baseline.read_bytes()
    assert [check.status for check in load_report(job.uploads / "difftrace-results/report.json").checks] == ["verified"]
    assert "1 check, none failed" in job.summary
    assert job.annotations == ()


def test_tests_with_a_root_folder_of_their_own_are_recorded_and_handed_on(repository, run_job):
    write(repository, "def test_a(difftrace): difftrace.check(traj(3, 4))\n", "sub/test_x.py")
    (repository / "pytest.ini").rename(repository / "sub/pytest.ini")
    job = run_job({"record": {"mode": "record", "paths": "sub"}})
    record = job.steps["record"]
    assert (record.outcome, record.outputs["result"], record.outputs["passed"]) == ("success", "pass", "1"), job.log
    recorded = job.uploads / "difftrace-results/recorded"
    assert (recorded / "rootdir.txt").read_text(encoding="utf-8") == "sub\n"
    baseline = job.workspace / "sub/__difftrace__/test_x/test_a.json"
    assert (recorded / "__difftrace__/test_x/test_a.json").read_bytes() == baseline.read_bytes()


def test_a_divergence_fails_the_step_and_is_told_everywhere(repository, run_job):
    write(repository, CHANGES)
    job = run_job({"record": {"mode": "record", "upload-artifact": "false"}, "verify": {}}, tolerated=True)
    assert job.succeeded  # continue-on-error
    verify = job.steps["verify"]
    assert (verify.outcome, verify.outputs["result"]) == ("failure", "diverged")
    assert (verify.outputs["passed"], verify.outputs["diverged"]) == ("0", "1")
    first = json.loads(verify.outputs["first-divergence"])
    assert (first["nodeid"], first["divergence"]["step"], first["divergence"]["position"]) == (
        "test_x.py::test_a",
        1,
        3,
    )
    assert (first["divergence"]["golden"], first["divergence"]["observed"]) == (4, 5)
    [annotation] = job.annotations
    assert (annotation["level"], annotation["file"]) == ("error", "test_x.py")
    assert annotation["line"] == str(PRELUDE.count("\n") + 4)
    assert "1 of 1 check failed" in job.summary
    assert "difftrace accept" in job.summary
    received = job.uploads / "difftrace-results/received/test_x.py/test_a.json"
    assert load(received).digest != load(job.workspace / "__difftrace__/test_x/test_a.json").digest
    assert list(job.uploads.iterdir()) == [job.uploads / "difftrace-results"]


def test_a_divergence_may_be_let_pass_and_fails_the_job_otherwise(repository, run_job):
    write(repository, f"{CHANGES}\ndef test_b(difftrace): difftrace.check(traj(3))\n")
    off = {"summary": "false", "upload-artifact": "false"}
    advisory = {"fail-on-divergence": "false", "pytest-args": "-x", **off}
    job = run_job(
        {"record": {"mode": "record", **off}, "advisory": advisory, "strict": off},
        tolerated=False,
    )
    assert not job.succeeded
    assert [job.steps[name].outcome for name in ("advisory", "strict")] == ["success", "failure"]
    assert {job.steps[name].outputs["result"] for name in ("advisory", "strict")} == {"diverged"}
    assert job.summary == ""
    assert not any(job.uploads.iterdir())


def test_missing_baselines_and_broken_tests_are_results_of_their_own(repository, run_job):
    write(repository, "def test_a(difftrace): difftrace.check(traj(3))\n", "a b/test_missing.py")
    write(repository, "def test_b(difftrace):\n  difftrace.check(traj(3))\ndef test_c(): assert 0\n", "test_broken.py")
    job = run_job(
        {
            "missing": {"paths": "a b/test_missing.py\n", "artifact-name": "missing", "results-dir": "out/put put"},
            "broken": {"paths": "test_broken.py", "upload-artifact": "false"},
            "absent": {"paths": "test_absent.py", "upload-artifact": "false"},
            "before": {"paths": "test_broken.py::test_c", "upload-artifact": "false"},
        }
    )
    missing, broken, absent = (job.steps[name] for name in ("missing", "broken", "absent"))
    assert {one.outcome for one in (missing, broken, absent)} == {"failure"}
    assert (missing.outputs["result"], missing.outputs["report-json"]) == ("no-baseline", "out/put put/report.json")
    [received] = (job.uploads / "missing/received").rglob("test_a.json")
    assert load(received).test is not None
    assert (broken.outputs["result"], absent.outputs["result"]) == ("error", "error")
    told = [one["text"] for one in job.annotations]
    assert any("the test test_broken.py::test_c failed although no check did" in text for text in told)
    assert any("no check ran: the test test_broken::test_c failed before one" in text for text in told)
    assert any("pytest refused its command line or settings" in text for text in told)


@pytest.fixture
def linked(repository, tmp_path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (repository / "link").symlink_to(tmp_path / "elsewhere")


@pytest.mark.usefixtures("linked")
def test_inputs_that_are_not_understood_stop_the_step_before_anything_runs(repository, run_job):
    write(repository, "Path('ran').touch()\n")
    job = run_job(
        {
            "values": {"mode": "verfy", "policy": "loose", "summary": "perhaps", "model": "owner/model@main"},
            "outside": {"results-dir": "../elsewhere"},
            "linked": {"results-dir": "link/results"},
            "python": {"python": "no-such-python"},
        }
    )
    assert {(one.outcome, one.outputs["result"]) for one in job.steps.values()} == {("failure", "error")}
    told = [one["text"] for one in job.annotations]
    assert "input mode: it takes verify or record, not 'verfy'" in told
    assert "input policy: it takes exact, near-tie, tokens or text, not 'loose'" in told
    assert "input summary: it takes true or false, not 'perhaps'" in told
    assert any(text.startswith("input model: it takes a folder, or owner/name@") for text in told)
    assert any(text.startswith("input results-dir: it takes a folder below the workspace") for text in told)
    # act can lose what a step says just before it ends; the summary is a file.
    assert "input python: it takes an interpreter of Python 3.10 or newer" in job.summary
    assert not (job.workspace / "ran").exists()


def test_text_in_an_input_is_never_executed(repository, run_job):
    write(repository, "def test_a(difftrace): difftrace.check(traj(3))\n")
    names = ("mode", "paths", "pytest-args", "model", "policy", "fail-on", "platform-key", "python", "artifact-name")
    job = run_job({**{name: {name: INJECTION} for name in names}, "folder": {"results-dir": INJECTION}})
    assert len(job.steps) == len(names) + 1
    results = {name: one.outputs["result"] for name, one in job.steps.items()}
    # A folder may have such a name; it is one, and nothing else.
    assert results == {**dict.fromkeys(names, "error"), "folder": "no-baseline"}
    assert (job.workspace / INJECTION / "report.json").is_file()
    assert not list(job.workspace.rglob("pwned"))


def test_tests_get_the_profile_from_the_start_and_neither_network_nor_secrets(repository, run_job, tmp_path):
    """sitecustomize sees every connection that any Python of the job tries."""
    watch = tmp_path / "watch"
    watch.mkdir()
    (watch / "sitecustomize.py").write_text(
        "import os, socket, sys\n"
        "def note(event, arguments):\n"
        "    if event == 'socket.connect' and arguments[0].family != socket.AF_UNIX:\n"
        "        open(os.environ['CONNECTIONS'], 'a').write(f'{arguments[1]}\\n')\n"
        "sys.addaudithook(note)\n"
        "open(os.environ['CONNECTIONS'] + '.watched', 'a').close()\n",
        encoding="utf-8",
    )
    write(
        repository,
        """
import sys
def test_a(difftrace):
    assert os.environ["PYTHONHASHSEED"] == "0" and not sys.flags.hash_randomization
    assert os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX2" or os.uname().machine != "x86_64"
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert not {"HF_TOKEN", "GITHUB_ENV", "GITHUB_PATH", "GITHUB_OUTPUT"} & set(os.environ)
    assert not [name for name in os.environ if name.startswith("DIFFTRACE_INPUT_")]
    assert os.environ["PYTHONPATH"] == os.environ["EXPECTED_PYTHONPATH"]
    # Nor does the process that started this one show it.
    parent = Path(f"/proc/{os.getppid()}/environ")
    assert not parent.exists() or b"hf_secret_of_the_job" not in parent.read_bytes()
    difftrace.check(traj(3))
""",
    )
    path = os.pathsep.join([str(watch), *job_path()])
    job = run_job(
        {"run": {"mode": "record", "profile": "cpu-portable", "pytest-args": "-v  --strict-markers"}},
        PYTHONPATH=path,
        EXPECTED_PYTHONPATH=path,
        CONNECTIONS=str(tmp_path / "connections"),
        HF_TOKEN="hf_secret_of_the_job",
    )
    assert job.steps["run"].outputs["result"] == "pass", job.log
    assert (tmp_path / "connections.watched").exists()
    assert not (tmp_path / "connections").exists()
    assert "hf_secret_of_the_job" not in job.log


def job_path() -> list[str]:
    root = Path(__file__).resolve().parents[2]
    return [str(root), str(root / "src")]
