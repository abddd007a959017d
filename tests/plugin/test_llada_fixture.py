"""The llada fixture: which model it runs, once a session, and what it says where it cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import difftrace.models
import difftrace.verification.runner

GENERATE = "llada.generate([1, 2, 3], gen_length=4, steps=4)"


# What loading a model is the first to import, parts of torch among it, must not be forgotten by the inner pytest.
@pytest.fixture
def arguments(conformance_folder: Path, conformance_model: object) -> list[str]:
    return [f"--difftrace-model={conformance_folder}"]


def test_a_run_is_recorded_and_verified_end_to_end(suite, run_pytest, baselines, arguments, conformance_folder):
    suite(f"def test_a(llada, difftrace): difftrace.check({GENERATE})\n")
    run_pytest(*arguments, "--difftrace-record").stdout.fnmatch_lines(["difftrace: 1 new"])
    before = baselines()
    run_pytest(*arguments, "--difftrace-verify").stdout.fnmatch_lines(["difftrace: 1 verified"])
    run_pytest(*arguments, "--difftrace-record=all").stdout.fnmatch_lines(["difftrace: 1 unchanged"])
    assert baselines() == before
    [data] = before.values()
    document = json.loads(data)
    assert document["model"]["name"] == conformance_folder.name
    assert document["environment"]["platform_key"] == "cpu"


def test_another_run_fails_naming_what_else_differs(suite, run_pytest, arguments):
    body = "def test_a(llada, difftrace): difftrace.check(llada.generate([1, 2, 3], gen_length=4, steps={}))\n"
    suite(body.format(4))
    run_pytest(*arguments, "--difftrace-record")
    suite(body.format(2))
    result = run_pytest(*arguments, "--difftrace-verify")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "difftrace: CONFIG: run differs from its baseline at step 0*",
            "CONFIG: The sampler's argument steps differs: 4 → 2.",
            "  sampler.steps: 4 → 2",
        ]
    )


def test_one_weight_that_is_one_bit_off_fails_although_every_token_is_the_same(
    suite, run_pytest, pytester, conformance_folder
):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(conformance_folder, pytester.path / "model")
    suite(f"def test_a(llada, difftrace): difftrace.check({GENERATE})\n")
    run_pytest("--difftrace-model=model", "--difftrace-record").assert_outcomes(passed=1)
    tensors = load_file(folder / "model.safetensors")
    weight = next(iter(tensors.values())).reshape(-1)
    weight[0] = torch.nextafter(weight[0], weight[0] + 1)
    save_file(tensors, folder / "model.safetensors")
    result = run_pytest("--difftrace-model=model", "--difftrace-verify")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["difftrace: WEIGHTS: run differs from its baseline, though no decision does"])
    result.stdout.no_fnmatch_line("*repeats itself:*")
    run_pytest("--difftrace-model=model", "--difftrace-policy=tokens").stdout.fnmatch_lines(
        ["difftrace: 1 of class WEIGHTS (allowed by policy tokens)"]
    )


def test_a_model_is_loaded_once_a_session_for_each_dtype(suite, run_pytest, pytester, arguments):
    pytester.makeconftest(
        """
        import difftrace.models as models
        def load(*arguments, load=models.load_model, **keywords):
            with open("loads", "a") as file: file.write(keywords["dtype"] + "\\n")
            return load(*arguments, **keywords)
        models.load_model = load
        """
    )
    original = difftrace.models.load_model
    suite(
        """
def test_a(llada): pass
def test_b(llada): pass
@pytest.mark.difftrace(dtype="float32")
def test_c(llada): assert str(llada.loaded.dtype) == "torch.float32"
@pytest.mark.difftrace(dtype="bfloat16")
def test_d(llada): assert str(llada.loaded.dtype) == "torch.bfloat16"
def test_e(llada): pass
"""
    )
    try:
        run_pytest(*arguments).assert_outcomes(passed=5)
    finally:
        difftrace.models.load_model = original
    assert (pytester.path / "loads").read_text(encoding="utf-8").split() == ["auto", "float32", "bfloat16"]


def test_nearest_marker_wins_over_option_and_ini(suite, run_pytest, pytester, conformance_folder):
    (pytester.path / "near").symlink_to(conformance_folder, target_is_directory=True)
    pytester.makeini("[pytest]\ndifftrace_model = no/such-model")
    suite(
        """
@pytest.mark.difftrace(model="no/other", dtype="float32")
class TestA:
    @pytest.mark.difftrace(model="near")
    def test_a(self, llada): assert str(llada.loaded.dtype) == "torch.float32"
    def test_b(self, llada): pass
def test_c(llada): pass
"""
    )
    result = run_pytest()
    result.assert_outcomes(passed=1, errors=2)
    result.stdout.fnmatch_lines(["difftrace: no/other: *", "difftrace: no/such-model: *"])


def test_relative_model_of_the_ini_file_is_seen_from_that_file(suite, run_pytest, pytester, conformance_folder):
    (pytester.path / "weights").symlink_to(conformance_folder, target_is_directory=True)
    pytester.makeini("[pytest]\ndifftrace_model = weights")
    suite("def test_a(llada): pass\n")
    pytester.mkdir("below")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(pytester.path / "below")
        run_pytest("..").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("model='/no/such/folder'", "*no such folder*"),
        ("model='owner/model'", "*needs revision= with the full 40-hex commit*"),
        ("model='owner/model', revision='main'", "*40-hex*'main'*"),
        ("modle='x'", "@pytest.mark.difftrace has no modle=; it takes model=, revision=, dtype=, device="),
        ("'x'", "@pytest.mark.difftrace takes only keywords: write model='x'"),
        ("dtype='int3'", "dtype must be *'int3'*"),
        ("device='nowhere'", "device 'nowhere' cannot be used here*"),
    ],
)
def test_what_cannot_be_loaded_is_one_clear_error(suite, run_pytest, arguments, marker: str, message: str):
    suite(f"@pytest.mark.difftrace({marker})\ndef test_a(llada): pass\ndef test_b(): pass\n")
    result = run_pytest(*arguments)
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines([f"difftrace: {message}"])
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    result.stdout.no_fnmatch_line("*Traceback*")


def test_without_torch_the_fixture_names_the_extra(suite, run_pytest, monkeypatch):
    monkeypatch.setattr("pytest_difftrace.fixtures.find_spec", lambda name: None)
    suite("def test_a(llada): pass\ndef test_b(difftrace): pass\n")
    result = run_pytest()
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(
        ['difftrace: the llada fixture needs torch; run `pip install "pytest-difftrace?torch?"`']
    )


def test_without_a_model_the_embedded_one_runs_on_the_cpu(suite, run_pytest, monkeypatch, conformance_folder):
    monkeypatch.setattr("difftrace.models.reference.reference_model_path", lambda: conformance_folder)
    suite("def test_a(llada): assert llada.loaded.device.type == 'cpu'\n")
    run_pytest().assert_outcomes(passed=1)


def test_contradicting_arguments_show_the_line_of_the_test_alone(suite, run_pytest, arguments):
    suite("def test_a(llada): llada.generate([1, 2, 3], gen_length=4, steps=3, block_length=2)\n")
    result = run_pytest(*arguments, "--difftrace-verify")
    result.stdout.fnmatch_lines(["E *SamplerError: steps 3 cannot be divided by the 2 blocks*"])
    result.stdout.no_fnmatch_line("*arguments.py*")
    result.stdout.no_fnmatch_line("*runner.py*")
