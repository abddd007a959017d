"""`difftrace doctor`: what it measures, what it is asked to fail on, and how it exits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from difftrace.core.doctor import PROBES, DoctorReport, ProbeResult, Surroundings
from difftrace.core.schemas import violation

Command = Callable[..., tuple[int, str, str]]

FOUND = (
    ProbeResult("repeat", "in process", "bit-equal", difference=0.0),
    ProbeResult("repeat", "fresh process", "bit-equal", difference=0.0),
    ProbeResult("batch", "2 rows instead of 1", "same decisions", difference=1e-6),
    ProbeResult("padding", "12 padding positions", "differs", step=3, position=14, prompt=1, difference=0.5),
    ProbeResult("threads", "2 instead of 1", "not run", reason="RuntimeError: no threads"),
    ProbeResult("attention", "flash instead of math", "bit-equal", difference=0.0),
    ProbeResult("attention", "cudnn instead of math", "not run", reason="not available here", unavailable=True),
    ProbeResult("dtype", "bfloat16 instead of float32", "same decisions", difference=0.1),
)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """Have the examination find `FOUND` without running it; the list takes the probes it was asked for."""
    from difftrace.determinism.status import Status
    from difftrace.verification import doctor

    asked: list[Sequence[str]] = []

    def examine(loaded, probes, started=None, finished=None) -> DoctorReport:
        asked.append(probes)
        settings = {"prompts": 4, "prompt_tokens": 10, "gen_length": 32, "steps": 16, "block_length": 32, "seed": 0}
        settings |= {"threads": 1, "attention": "math"}
        status = Status("cpu", None, None, (), ())
        around = Surroundings(
            loaded.name, None, str(loaded.dtype), str(loaded.device), settings, status, {"torch": "2.6"}
        )
        results = tuple(result for result in FOUND if result.probe in probes)
        if started is not None:
            started(around)
        for result in results:
            if finished is not None:
                finished(result)
        return DoctorReport(around, results)

    monkeypatch.setattr(doctor, "examine", examine)
    return asked


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ([], 0),
        (["--fail-on", "none"], 0),
        (["--fail-on", "repeat"], 0),
        (["--fail-on", "batch"], 1),
        (["--fail-on", "batch:decisions"], 0),
        (["--fail-on", "padding"], 1),
        (["--fail-on", "padding:decisions"], 1),
        (["--fail-on", "threads:decisions"], 1),
        (["--fail-on", "attention"], 0),
        (["--fail-on", "dtype"], 1),
        (["--fail-on", "repeat,dtype:decisions"], 0),
        (["--fail-on", "repeat", "--fail-on", "batch"], 1),
        (["--fail-on", "repeat, padding"], 1),
        (["--probe", "batch"], 0),
        (["--probe", "batch", "--fail-on", "batch"], 1),
    ],
)
@pytest.mark.parametrize("output", [[], ["--json"]])
def test_the_exit_status_is_what_was_asked_to_fail_on(
    difftrace: Command, found: object, arguments: list[str], output: list[str], status: int
) -> None:
    assert difftrace("doctor", *arguments, *output)[0] == status


def test_what_was_not_met_is_said(difftrace: Command, found: object) -> None:
    _, out, _ = difftrace("doctor", "--fail-on", "threads,attention")
    assert out.splitlines()[-2:] == [
        "threads: asked for bit-equal runs: NOT MET (2 instead of 1: not run)",
        "attention: asked for bit-equal runs: met",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fail-on", "vibes"], "there is no probe 'vibes': choose from repeat, batch"),
        (["--fail-on", "batch:tokens"], "after the colon stands decisions"),
        (["--fail-on", "batch:"], "after the colon stands decisions"),
        (["--fail-on", "none,repeat"], "none stands alone"),
        (["--fail-on", ""], "there is no probe ''"),
        (["--probe", "vibes"], "there is no probe 'vibes'"),
        (["--probe", "none"], "there is no probe 'none'"),
        (["--probe", "batch", "--fail-on", "repeat"], "--fail-on repeat asks for a probe that --probe leaves out"),
        (["extra"], "unexpected extra argument"),
    ],
)
def test_contradictions_are_usage_errors(
    difftrace: Command, found: list[Sequence[str]], arguments: list[str], words: str
) -> None:
    status, out, err = difftrace("doctor", *arguments)
    assert (status, out) == (2, "")
    assert words in " ".join(err.split())
    assert found == []


@pytest.mark.parametrize(
    ("arguments", "probes"),
    [
        ([], PROBES),
        (["--probe", "dtype,batch"], ("batch", "dtype")),
        (["--probe", "batch", "--probe", "batch"], ("batch",)),
    ],
)
def test_probes_are_chosen_by_name(
    difftrace: Command, found: list[Sequence[str]], arguments: list[str], probes: tuple[str, ...]
) -> None:
    difftrace("doctor", *arguments)
    assert found == [probes]


def test_each_line_says_what_was_found(difftrace: Command, found: object) -> None:
    _, out, _ = difftrace("doctor")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "model reference, torch.float32 on cpu" in lines
    assert "batch 2 rows instead of 1 same decisions 1e-06" in lines
    assert "padding 12 padding positions differs 0.5 step 3 position 14, prompt 1" in lines
    at = lines.index("threads 2 instead of 1 not run")
    assert lines[at + 1] == "RuntimeError: no threads"
    assert lines[-1] == "repeat: asked for bit-equal runs: met"
    assert max(map(len, out.splitlines())) <= 100


def test_json_is_one_object_that_keeps_its_schema(difftrace: Command, found: object) -> None:
    status, out, err = difftrace("doctor", "--json", "--fail-on", "batch,batch:decisions")
    document = json.loads(out)
    assert (status, err) == (1, "")
    assert violation("doctor", document) is None
    assert [demand["met"] for demand in document["demands"]] == [False, True]
    assert len(document["probes"]) == len(FOUND)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "nobody/nothing"], "needs revision="),
        (["--model", "./absent"], "no such folder"),
        (["--dtype", "int8"], "dtype must be"),
        (["--device", "warp"], "cannot be used here"),
    ],
)
def test_a_model_that_cannot_be_loaded_could_not_run(
    difftrace: Command, found: list[Sequence[str]], arguments: list[str], words: str
) -> None:
    status, out, err = difftrace("doctor", *arguments)
    assert (status, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert found == []


def test_the_reference_model_is_examined_for_real(
    difftrace: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What lies in the working folder must not get into the fresh process.
    (tmp_path / "random.py").write_text("raise SystemExit('not the module that was meant')")
    monkeypatch.chdir(tmp_path)
    status, out, _ = difftrace("doctor", "--json", "--device", "cpu", "--fail-on", "repeat,padding:decisions")
    document = json.loads(out)
    assert violation("doctor", document) is None
    results = {(result["probe"], result["variant"]): result for result in document["probes"]}
    assert {probe for probe, _ in results} == set(PROBES)
    assert (document["status"]["profile"], document["status"]["active"]) == ("cpu", True)
    assert {s["name"]: s["in_force"] for s in document["status"]["switches"]}["deterministic_algorithms"] is True
    for variant in ("in process", "fresh process"):
        assert results["repeat", variant]["verdict"] == "bit-equal", results["repeat", variant]
    for result in results.values():
        assert (result["verdict"] == "not run") == result["unavailable"]
        assert (result["verdict"] == "not run") == (result["difference"] is None)
    assert 0 < results["padding", "12 padding positions"]["difference"] < 1e-3
    assert 1e-3 < results["dtype", "bfloat16 instead of float32"]["difference"] < 10
    assert status == 0
    assert str(tmp_path) not in out


def test_a_model_without_tokenizer_is_examined_too(difftrace: Command, conformance_folder: Path) -> None:
    status, out, _ = difftrace("doctor", "--model", conformance_folder, "--device", "cpu", "--probe", "batch,padding")
    assert status == 0
    assert "model llada, float32 on cpu" in out
    assert "not run" not in out


def test_help_and_usage_errors_do_not_wait_for_torch() -> None:
    program = (
        "import sys\nfrom difftrace.cli import main\ntry:\n    main()\nfinally:\n    print('torch' in sys.modules)\n"
    )
    command = [sys.executable, "-c", program, "doctor", "--fail-on", "vibes"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "False\n"), done.stderr
