"""The environment that pytest gets: what the profile needs, and nothing of the action's own."""

from __future__ import annotations

import os

import pytest

from difftrace.determinism.profiles import CPU, CUDA, GFX942, PORTABLE, ROCM
from pytest_difftrace.github.child_environment import (
    ORIGINAL_PYTHONPATH,
    for_installation,
    for_pytest,
    for_run,
    plain,
    profile_of,
    without_tokens,
)
from pytest_difftrace.github.errors import ActionError
from pytest_difftrace.github.torch_build import TorchBuild


def test_the_variables_of_the_profile_are_set():
    found = for_pytest({"ROCBLAS_USE_HIPBLASLT": "1", "TORCH_ROCM_FA_PREFER_CK": "1"}, GFX942, summary=True)
    assert (found["ROCBLAS_DEFAULT_ATOMICS_MODE"], found["ROCBLAS_USE_HIPBLASLT"]) == ("0", "0")
    assert "TORCH_ROCM_FA_PREFER_CK" not in found
    assert found["PYTHONHASHSEED"] == "0"


def test_values_that_serve_as_well_are_kept_and_others_that_cannot_be_replaced_are_refused():
    assert for_pytest({"CUBLAS_WORKSPACE_CONFIG": ":16:8"}, CUDA, summary=True)["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    assert for_pytest({"PYTHONHASHSEED": "42"}, CPU, summary=True)["PYTHONHASHSEED"] == "42"
    with pytest.raises(ActionError, match="CUBLAS_WORKSPACE_CONFIG=':0:0' in the environment"):
        for_pytest({"CUBLAS_WORKSPACE_CONFIG": ":0:0"}, CUDA, summary=True)


def test_the_run_is_offline_and_has_neither_tokens_nor_a_say_in_later_steps():
    job = {"HF_TOKEN": "t", "GITHUB_TOKEN": "t", "GITHUB_ENV": "f", "GITHUB_PATH": "f", "GITHUB_OUTPUT": "f", "A": "b"}
    found = for_pytest({**job, "DIFFTRACE_INPUT_MODE": "verify"}, PORTABLE, summary=True)
    assert not found.keys() & {*job, "DIFFTRACE_INPUT_MODE"} - {"A"}
    assert found["A"] == "b"
    assert found["HF_HUB_OFFLINE"] == found["TRANSFORMERS_OFFLINE"] == "1"


def test_the_process_that_runs_pytest_is_started_without_tokens(tmp_path):
    job = {"HF_TOKEN": "t", "ACTIONS_RUNTIME_TOKEN": "t", "GITHUB_ENV": "f", "GITHUB_OUTPUT": "f", "GITHUB_TOKEN": "t"}
    given = {**job, "DIFFTRACE_INPUT_MODE": "verify", "PYTHONPATH": "/action", ORIGINAL_PYTHONPATH: "/own"}
    found = for_run(given, tmp_path)
    assert not found.keys() & job.keys() - {"GITHUB_OUTPUT"}
    assert (found["GITHUB_OUTPUT"], found["DIFFTRACE_INPUT_MODE"], found[ORIGINAL_PYTHONPATH]) == (
        "f",
        "verify",
        "/own",
    )
    assert found["PYTHONPATH"] == os.pathsep.join([str(tmp_path), str(tmp_path / "src"), "/own"])
    assert not without_tokens(given).keys() - {"PYTHONPATH"}


def test_the_installation_has_neither_tokens_nor_an_import_path_into_the_checkout():
    job = {"HF_TOKEN": "t", "GITHUB_TOKEN": "t", "PIP_EXTRA_INDEX_URL": "u", "PYTHONPATH": "/action"}
    assert for_installation({**job, ORIGINAL_PYTHONPATH: "/own"}) == {"PIP_EXTRA_INDEX_URL": "u"}
    assert for_installation(job) == {"PIP_EXTRA_INDEX_URL": "u"}


def test_the_summary_is_written_where_it_is_asked_for():
    job = {"GITHUB_STEP_SUMMARY": "summary.md"}
    assert "GITHUB_STEP_SUMMARY" in for_pytest(job, CPU, summary=True)
    assert "GITHUB_STEP_SUMMARY" not in for_pytest(job, CPU, summary=False)


def test_the_jobs_own_import_path_is_put_back():
    assert plain({"PYTHONPATH": "/action:/own", ORIGINAL_PYTHONPATH: "/own"}) == {"PYTHONPATH": "/own"}
    assert plain({"PYTHONPATH": "/action", ORIGINAL_PYTHONPATH: ""}) == {}
    assert plain({"PYTHONPATH": "/own"}) == {"PYTHONPATH": "/own"}


def test_the_build_of_torch_decides_the_profile_unless_one_is_named():
    hip, cuda, cpu = (TorchBuild("f", "2", *built) for built in (("7.0", None), (None, "13.0"), (None, None)))
    assert [profile_of("", torch) for torch in (hip, cuda, cpu, None)] == [ROCM, CUDA, CPU, CPU]
    assert profile_of(PORTABLE, hip) == PORTABLE
