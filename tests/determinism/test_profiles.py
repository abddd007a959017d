"""Profiles are data: which device gets which rows, from what torch reports."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from difftrace.core.errors import DeterminismError
from difftrace.determinism.devices import platform_key, profile_of
from difftrace.determinism.enforcement import enforce
from difftrace.determinism.profiles import AS_FOUND, PROFILES, TABLE, Row, early_rows, rows
from difftrace.determinism.status import status
from difftrace.determinism.switches import SWITCHES

GFX942 = {
    "TORCH_BLAS_PREFER_HIPBLASLT": "0",
    "ROCBLAS_USE_HIPBLASLT": "0",
    "ROCBLAS_DEFAULT_ATOMICS_MODE": "0",
    "PYTORCH_TUNABLEOP_ENABLED": "0",
    "HIPBLASLT_TUNING_OVERRIDE_FILE": None,
    "TORCH_ROCM_FA_PREFER_CK": None,
    "NCCL_ALGO": "Ring",
    "NCCL_PROTO": "Simple",
    "CUBLAS_WORKSPACE_CONFIG": AS_FOUND,
    "deterministic_algorithms": "error",
    "attention_backend": "math",
    "compiler": "off",
}
SM90 = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "PYTORCH_TUNABLEOP_ENABLED": "0",
    "deterministic_algorithms": "error",
    "attention_backend": "math",
    "cuda.matmul.fp32_precision": "ieee",
    "cudnn.conv.fp32_precision": "ieee",
    "bf16_reduced_precision_reduction": "off",
    "fp16_reduced_precision_reduction": "off",
    "cudnn.deterministic": True,
    "cudnn.benchmark": False,
    "compiler": "off",
}


def _fake(monkeypatch: pytest.MonkeyPatch, arch: str) -> None:
    """Let torch report a device of architecture `arch`."""
    hip = arch.startswith("gfx")
    monkeypatch.setattr(torch.version, "hip", "6.4" if hip else None)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    properties = SimpleNamespace(gcnArchName=f"{arch}:sramecc+:xnack-")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)


@pytest.mark.parametrize(
    ("arch", "profile", "key", "expected"),
    [("gfx942", "rocm-gfx942", "rocm-gfx942", GFX942), ("sm90", "cuda", "cuda-sm90", SM90)],
)
def test_a_device_gets_its_profile_with_every_row(
    monkeypatch: pytest.MonkeyPatch, arch: str, profile: str, key: str, expected: dict[str, object]
) -> None:
    _fake(monkeypatch, arch)
    assert profile_of(None) == profile_of("cuda:1") == profile
    assert platform_key(torch.device("cuda:1")) == key
    found = {row.name: row.value for row in rows(profile)}
    assert expected.items() <= found.items()
    with enforce():
        assert {state.name for state in status().switches} == found.keys()
        assert status().profile == profile


def test_an_amd_device_without_rows_of_its_own_gets_the_common_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    _fake(monkeypatch, "gfx90a")
    assert profile_of("cuda") == "rocm"
    assert {row.name for row in rows("rocm")} >= {"ROCBLAS_DEFAULT_ATOMICS_MODE", "blas_library"}


def test_a_device_of_another_kind_gets_what_torch_switches_for_all() -> None:
    assert profile_of("mps") == "generic"
    assert "deterministic_algorithms" in {row.name for row in rows("generic")}


def test_an_unknown_profile_is_refused_with_those_there_are() -> None:
    with pytest.raises(DeterminismError, match="'tpu': choose cpu, cpu-portable, cuda, rocm-gfx942"):
        rows("tpu")


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.name}-{row.profiles[0]}")
def test_every_row_says_what_when_and_why_and_can_be_carried_out(row: Row) -> None:
    assert row.why
    assert row.profiles
    assert set(row.profiles) <= PROFILES.keys()
    assert row.is_variable or row.name in SWITCHES
    assert row.is_variable == (row.when != "any time")
    assert row.accepts(row.value)


@pytest.mark.parametrize("profile", PROFILES)
def test_no_profile_names_a_switch_twice(profile: str) -> None:
    names = [row.name for row in rows(profile)]
    assert len(names) == len(set(names))


def test_rows_for_one_kind_of_processor_are_left_out_on_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert "MKL_CBWR" not in {row.name for row in rows("cpu-portable")}
    monkeypatch.setattr("platform.machine", lambda: "AMD64")
    assert "MKL_CBWR" in {row.name for row in rows("cpu-portable")}


def test_early_are_the_variables_that_a_running_process_can_still_set() -> None:
    assert early_rows("cpu") == ()
    variables = {"CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "PYTORCH_TUNABLEOP_ENABLED"}
    assert {row.name for row in early_rows("cuda")} == variables
    assert "CUBLAS_WORKSPACE_CONFIG" not in {row.name for row in early_rows("rocm-gfx942")}


def test_the_table_is_read_without_torch() -> None:
    program = "import sys; from difftrace.determinism import profiles, variables; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
