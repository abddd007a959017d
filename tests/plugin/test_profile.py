"""The determinism profile: asked for by option or ini file, handed to the model runner, and never broken silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import difftrace
import difftrace.models
import difftrace.verification.runner
from pytest_difftrace.workers import default_device

GENERATE = "llada.generate([1, 2, 3], gen_length=4, steps=4)"


# What loading a model is the first to import, parts of torch among it, must not be forgotten by the inner pytest.
@pytest.fixture
def arguments(conformance_folder: Path, conformance_model: object) -> list[str]:
    return [f"--difftrace-model={conformance_folder}"]


def test_option_wins_over_ini_and_reaches_the_runner(suite, run_pytest, pytester, arguments):
    suite("import os\ndef test_a(llada): assert str(llada.profile) == os.environ['EXPECTED']\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPECTED", "None")
        run_pytest(*arguments).assert_outcomes(passed=1)
        pytester.makeini("[pytest]\ndifftrace_profile = cpu")
        patch.setenv("EXPECTED", "cpu")
        run_pytest(*arguments).assert_outcomes(passed=1)
        pytester.makeini("[pytest]\ndifftrace_profile = cuda")
        run_pytest(*arguments, "--difftrace-profile=cpu").assert_outcomes(passed=1)


@pytest.mark.parametrize("ini", [False, True])
@pytest.mark.parametrize("mode", [[], ["--difftrace-verify"]])
def test_an_unknown_profile_is_a_usage_error_that_lists_them(suite, run_pytest, pytester, ini: bool, mode: list[str]):
    suite("def test_a(): pass\n")
    if ini:
        pytester.makeini("[pytest]\ndifftrace_profile = tpu")
    result = run_pytest(*mode, *([] if ini else ["--difftrace-profile=tpu"]))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: there is no determinism profile 'tpu': choose cpu, cpu-portable, cuda, *"])


def test_the_header_names_a_profile_that_was_asked_for(suite, run_pytest):
    suite("def test_a(): pass\n")
    result = run_pytest("--difftrace-verify", "--difftrace-profile=cpu")
    result.stdout.fnmatch_lines(["difftrace: mode verify, policy exact, profile cpu, baselines in __difftrace__*"])
    run_pytest("--difftrace-verify").stdout.no_fnmatch_line("difftrace: *profile*")


def test_a_profile_for_another_device_is_one_clear_failure(suite, run_pytest, arguments):
    suite(f"def test_a(llada): {GENERATE}\n")
    result = run_pytest(*arguments, "--difftrace-profile=cuda")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["difftrace: determinism profile cuda is not for device 'cpu': drop it, which means cpu there"]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*enforcement.py*")


@pytest.mark.parametrize(
    ("model", "profile", "device"),
    [
        (None, None, "cpu"),
        (None, "cpu-portable", "cpu"),
        (None, "rocm-gfx942", "auto"),
        (None, "cuda", "auto"),
        ("folder", None, "auto"),
        ("folder", "cpu", "auto"),
    ],
)
def test_the_embedded_model_follows_a_profile_of_other_devices(model, profile, device):
    assert default_device(model, profile) == device


def test_a_switch_changed_during_a_run_fails_at_the_line_of_the_test_naming_the_switch(suite, run_pytest, arguments):
    suite(
        f"""
import torch
def test_a(llada, monkeypatch):
    forward = type(llada.loaded.model).forward
    def changing(*arguments, **keywords):
        torch.backends.cuda.enable_flash_sdp(True)
        return forward(*arguments, **keywords)
    monkeypatch.setattr(type(llada.loaded.model), "forward", changing)
    {GENERATE}
"""
    )
    result = run_pytest(*arguments)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E *DeterminismError: attention_backend: requested math, in force flash*changed since*"]
    )
    result.stdout.no_fnmatch_line("*runner.py*")
    result.stdout.no_fnmatch_line("*enforcement.py*")


def test_a_model_is_loaded_under_what_its_device_has_to_be_started_with(suite, run_pytest, arguments, monkeypatch):
    seen: list[tuple[bool, str, Any]] = []
    load = difftrace.models.load_model

    def watched(*given: Any, **keywords: Any) -> Any:
        seen.append((difftrace.status().enforced, difftrace.status().profile, keywords["device"]))
        return load(*given, **keywords)

    monkeypatch.setattr("difftrace.models.load_model", watched)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    suite("def test_a(llada): pass\n")
    run_pytest(*arguments).assert_outcomes(passed=1)
    assert seen == [(True, "cpu", "cpu")]
    assert not difftrace.status().active
