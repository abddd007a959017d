"""The fresh process: what it answers, and every way in which it may not."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from difftrace.core.errors import DiffTraceError, ProbeError
from difftrace.models import LoadedModel
from difftrace.verification import probe_process
from difftrace.verification.probe_process import main, rows_of_fresh_process
from difftrace.verification.probe_run import Conditions, run_rows

PROMPTS = ((5, 6, 7), (8, 9, 10))


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Have a shell script stand in for the interpreter; its arguments are `-m MODULE REQUEST RESULT`."""

    def use(script: str) -> None:
        path = tmp_path / "interpreter"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return use


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo one >&2; echo 'two \x1b[31m' >&2; exit 3", "the fresh process ended with status 3: two \x1b[31m"),
        ("exit 7", "the fresh process ended with status 7 and said nothing"),
        ("kill -9 $$", "the fresh process ended with status -9 and said nothing"),
        ("yes words | head -n 30000 >&2; echo last >&2; exit 1", "the fresh process ended with status 1: last"),
    ],
)
def test_a_process_that_dies_is_reported_with_its_last_line(
    conformance_model: LoadedModel, interpreter: Callable[[str], None], script: str, message: str
) -> None:
    interpreter(script)
    with pytest.raises(ProbeError) as caught:
        rows_of_fresh_process(conformance_model, PROMPTS, 1)
    assert str(caught.value) == message


def test_a_process_that_takes_too_long_is_ended(
    conformance_model: LoadedModel, interpreter: Callable[[str], None]
) -> None:
    interpreter("exec tail -f /dev/null")
    with pytest.raises(ProbeError, match=r"no answer within 0\.01 s"):
        rows_of_fresh_process(conformance_model, PROMPTS, 1, timeout=0.01)


def test_an_interpreter_that_is_not_there_is_reported(
    conformance_model: LoadedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    with pytest.raises(ProbeError, match="no fresh process could be started"):
        rows_of_fresh_process(conformance_model, PROMPTS, 1)


@pytest.mark.parametrize("script", ["exit 0", 'echo nonsense > "$4"', 'printf "\\000" > "$4"'])
def test_success_without_a_readable_answer_is_no_answer(
    conformance_model: LoadedModel, interpreter: Callable[[str], None], script: str
) -> None:
    interpreter(script)
    with pytest.raises(DiffTraceError, match="no readable answer"):
        rows_of_fresh_process(conformance_model, PROMPTS, 1)


def test_the_answer_holds_the_rows_to_the_last_bit(
    conformance_model: LoadedModel, interpreter: Callable[[str], None], tmp_path: Path
) -> None:
    # The script keeps the request; the answer to it, made in this process, is what it gives the second time.
    interpreter(f'cp "$3" {tmp_path}/request.json; exit 1')
    with pytest.raises(ProbeError):
        rows_of_fresh_process(conformance_model, PROMPTS, 1)
    assert main([str(tmp_path / "request.json"), str(tmp_path / "answer")]) == 0
    interpreter(f'cp {tmp_path}/answer "$4"')
    answered = rows_of_fresh_process(conformance_model, PROMPTS, 1)
    expected = run_rows(conformance_model, PROMPTS, Conditions(1))
    assert [row.trajectory for row in answered] == [row.trajectory for row in expected]
    for one, two in zip(answered, expected, strict=True):
        assert one.logits.dtype == two.logits.dtype
        assert torch.equal(one.logits, two.logits)


def test_the_request_names_what_was_loaded(
    conformance_model: LoadedModel, interpreter: Callable[[str], None], tmp_path: Path
) -> None:
    interpreter(f'cp "$3" {tmp_path}/request.json; exit 1')
    with pytest.raises(ProbeError):
        rows_of_fresh_process(conformance_model, PROMPTS, 2)
    assert json.loads((tmp_path / "request.json").read_text()) == {
        "folder": str(conformance_model.folder),
        "dtype": "torch.float32",
        "device": "cpu",
        "prompts": [[5, 6, 7], [8, 9, 10]],
        "threads": 2,
    }


def test_whatever_goes_wrong_there_becomes_one_printable_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = tmp_path / "request.json"
    request.write_text(
        json.dumps(
            {"folder": str(tmp_path / "a\x1b[31m"), "dtype": "float32", "device": "cpu", "prompts": [], "threads": 1}
        )
    )
    assert main([str(request), str(tmp_path / "answer")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ModelError: ")
    assert err.count("\n") == 1
    assert "\x1b" not in err
    assert not (tmp_path / "answer").exists()


def test_nothing_is_left_in_the_temporary_folder(
    conformance_model: LoadedModel,
    interpreter: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(probe_process, "TemporaryDirectory", _inside(folder))
    interpreter('touch "$4" "$4.more"; exit 1')
    with pytest.raises(ProbeError):
        rows_of_fresh_process(conformance_model, PROMPTS, 1)
    assert list(folder.iterdir()) == []


def _inside(folder: Path) -> Callable[..., object]:
    original = probe_process.TemporaryDirectory
    return lambda prefix: original(prefix=prefix, dir=folder)
