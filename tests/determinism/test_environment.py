"""The fingerprint says what decides the bits, and nothing about whose machine it is."""

from __future__ import annotations

import getpass
import itertools
import json
import platform
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import difftrace
from difftrace.core.baseline import dump, parse
from difftrace.core.environments import FIELDS, comparable
from difftrace.core.run import Run
from difftrace.core.trajectory import Trajectory
from difftrace.determinism import environment
from difftrace.determinism.canary import canary
from difftrace.determinism.devices import platform_key
from difftrace.determinism.enforcement import enforce
from difftrace.determinism.environment import fingerprint
from difftrace.determinism.profiles import TABLE

Computed = list[tuple[torch.device, torch.dtype | None]]


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Computed]:
    """Count canaries in place of computing them."""
    calls: Computed = []

    def count(device: torch.device, dtype: torch.dtype | None) -> str:
        calls.append((device, dtype))
        return f"canary {len(calls)}"

    environment._canary.cache_clear()
    monkeypatch.setattr(environment, "canary", count)
    yield calls
    environment._canary.cache_clear()


def _mi300(monkeypatch: pytest.MonkeyPatch, name: str = "AMD Instinct MI300X") -> None:
    properties = SimpleNamespace(name=name, multi_processor_count=304, gcnArchName="gfx942:sramecc+:xnack-")
    monkeypatch.setattr(torch.version, "hip", "6.4.43483")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)


def test_it_names_what_decides_the_bits() -> None:
    with enforce():
        found = fingerprint("cpu", torch.bfloat16)
        assert found["canary"] == canary("cpu", torch.bfloat16)
    assert found["platform_key"] == "cpu"
    assert found["architecture"] == platform.machine()
    assert found["torch"] == torch.__version__
    assert type(found["torch"]) is str
    assert found["python"] == platform.python_version()
    assert found["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert found["threads"] == torch.get_num_threads()
    assert found["dtype"] == "bfloat16"
    assert found["profile"] == "cpu"
    assert found["attention_backend"] == "math"
    assert found["deterministic_algorithms"] == "error"
    assert found["float32_matmul_precision"] == "highest"
    assert found["blas"]
    assert found["cpu"]


def test_every_field_is_a_switch_of_the_profile_or_says_why_it_is_there(
    monkeypatch: pytest.MonkeyPatch, computed: Computed
) -> None:
    explained = {row.name for row in TABLE} | {field.name for field in FIELDS}
    assert set(fingerprint("cpu")) <= explained
    _mi300(monkeypatch)
    assert set(fingerprint("cuda")) <= explained


def test_it_shows_what_is_in_force_when_it_is_read() -> None:
    before = fingerprint("cpu")
    assert (before["deterministic_algorithms"], before["profile"]) == ("default", None)
    with enforce():
        held = fingerprint("cpu")
        torch.backends.cuda.enable_flash_sdp(True)
        changed = fingerprint("cpu")
    assert (held["deterministic_algorithms"], held["attention_backend"]) == ("error", "math")
    assert changed["attention_backend"] == "flash+math"
    assert changed["canary"] != held["canary"]
    assert fingerprint("cpu") == before


def test_it_is_the_same_twice_plain_json_and_sorted() -> None:
    found = fingerprint()
    assert fingerprint() == found
    assert json.loads(json.dumps(found)) == found
    assert list(found) == sorted(found)
    assert {type(value) for value in found.values()} <= {str, int, bool, type(None)}


def test_it_changes_nothing(settings_now: Callable[[], dict[str, Any]]) -> None:
    environment._canary.cache_clear()
    before = settings_now()
    fingerprint("cpu", torch.bfloat16)
    assert settings_now() == before


def test_a_baseline_keeps_it_and_gives_it_back() -> None:
    here = fingerprint("cpu", torch.float32)
    trajectory = Trajectory(prompt=[], initial=[9], steps=[0], positions=[0], tokens=[1], num_steps=1)
    baseline = Run((trajectory,), environment=here).to_baseline(None)
    read = parse(dump(baseline), "golden.json").environment
    assert comparable(read, here).verdict == "identical"


def test_it_holds_neither_host_nor_user_nor_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", str(Path.home() / "isa"))
    text = json.dumps(fingerprint())
    for private in (socket.gethostname(), str(Path.home()), str(Path.cwd()), f'"{getpass.getuser()}"'):
        if len(private) > 1:
            assert private not in text
    assert "/" not in text
    assert "\\" not in text


def test_variables_are_shown_by_value_unless_it_could_be_a_path(
    monkeypatch: pytest.MonkeyPatch, computed: Computed
) -> None:
    _mi300(monkeypatch)
    for name, value in {
        "CUBLAS_WORKSPACE_CONFIG": ":16:8",
        "HIPBLASLT_TUNING_OVERRIDE_FILE": "tuning.txt",
        "NCCL_ALGO": "Ring",
        "NCCL_PROTO": "a value with blanks and more",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ROCBLAS_USE_HIPBLASLT", raising=False)
    found = fingerprint("cuda")
    assert found["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    assert found["HIPBLASLT_TUNING_OVERRIDE_FILE"] == "set"
    assert found["NCCL_ALGO"] == "Ring"
    assert found["NCCL_PROTO"] == "set"
    assert found["ROCBLAS_USE_HIPBLASLT"] == "unset"


def test_variables_that_pin_a_cpu_count_also_without_the_profile_that_sets_them(
    monkeypatch: pytest.MonkeyPatch, computed: Computed
) -> None:
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("x86 variables")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert fingerprint("cpu")["ONEDNN_MAX_CPU_ISA"] == "AVX2"


def test_settings_of_another_kind_of_device_are_no_suspects(
    monkeypatch: pytest.MonkeyPatch, computed: Computed
) -> None:
    assert not any(name.startswith(("cuda.", "cudnn.")) for name in fingerprint("cpu"))
    _mi300(monkeypatch)
    found = fingerprint("cuda")
    assert "cuda.matmul.fp32_precision" in found
    assert not any(name.startswith("mkldnn.") for name in found)


def test_types_of_numbers_set_behind_the_models_back_are_shown(computed: Computed) -> None:
    plain = fingerprint("cpu")
    assert (plain["default_dtype"], plain["autocast"]) == ("float32", "off")
    torch.set_default_dtype(torch.float64)
    try:
        assert fingerprint("cpu")["default_dtype"] == "float64"
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fingerprint("cpu")["autocast"] == "bfloat16"
    if torch.set_flush_denormal(True):
        try:
            assert fingerprint("cpu")["flush_denormal"] is True
        finally:
            torch.set_flush_denormal(False)
    assert fingerprint("cpu")["flush_denormal"] is False


def test_a_canary_is_computed_once_for_equal_settings_and_anew_for_others(computed: Computed) -> None:
    first = fingerprint("cpu")["canary"]
    assert fingerprint("cpu")["canary"] == first
    assert len(computed) == 1
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert fingerprint("cpu")["canary"] != first
    finally:
        torch.set_num_threads(threads)
    with enforce():
        with enforce(attention="flash"):
            fingerprint("cpu")
        assert len(computed) == 3
        fingerprint("cpu")
        fingerprint("cpu", torch.bfloat16)
        fingerprint("cpu", torch.bfloat16)
    assert len(computed) == 5
    assert fingerprint("cpu")["canary"] == first
    assert len(computed) == 5


def test_without_a_device_it_is_the_one_that_enforce_would_take(
    monkeypatch: pytest.MonkeyPatch, computed: Computed
) -> None:
    assert fingerprint()["platform_key"] == "cpu"
    _mi300(monkeypatch)
    monkeypatch.setattr(environment, "default_device_type", lambda: "cuda")
    assert fingerprint()["platform_key"] == "rocm-gfx942"
    with enforce(device="cpu"):
        assert fingerprint()["platform_key"] == "cpu"
    assert [device.type for device, _ in computed] == ["cpu", "cuda", "cpu"]


def test_the_key_of_a_cuda_device_is_its_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert platform_key(torch.device("cuda:1")) == "cuda-sm90"


@pytest.mark.parametrize("name", ["gfx942:sramecc+:xnack-", "gfx942"])
def test_the_key_of_a_rocm_device_is_its_architecture_without_its_settings(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(gcnArchName=name))
    assert platform_key(torch.device("cuda")) == "rocm-gfx942"


@pytest.mark.parametrize("kind", ["cpu", "mps", "xpu"])
def test_other_devices_are_known_by_their_type(kind: str) -> None:
    assert platform_key(torch.device(kind)) == kind


def test_a_gpus_name_size_and_libraries_are_part_of_it(monkeypatch: pytest.MonkeyPatch, computed: Computed) -> None:
    _mi300(monkeypatch, name="AMD Instinct MI250X/MI250")
    found = fingerprint("cuda")
    assert (found["device"], found["multiprocessors"]) == ("AMD Instinct MI250X-MI250", 304)
    assert found["platform_key"] == "rocm-gfx942"
    assert found["device_architecture"] == "gfx942:sramecc+:xnack-"
    assert found["deterministic_algorithms"] == "default"
    assert {"driver", "device_blas", "cudnn"} <= set(found)


_OLD_AND_NEW: dict[str, Callable[[], object]] = {
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "allow_tf32": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    "cudnn.allow_tf32": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "mkldnn.matmul": lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),
    "cuda.matmul": lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
    "cudnn.conv": lambda: setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee"),
    "all": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
}


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(_OLD_AND_NEW, 2)))
def test_mixing_older_and_newer_settings_of_precision_never_stops_it(
    first: str, second: str, precision_undone: Callable[[], None], computed: Computed
) -> None:
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("this torch has no precision per backend")
    with enforce():
        expected = fingerprint("cpu")
    for change in (first, second):
        _OLD_AND_NEW[change]()
        found = fingerprint("cpu")
        assert found["mkldnn.matmul.fp32_precision"] == torch.backends.mkldnn.matmul.fp32_precision
    with enforce():
        assert fingerprint("cpu") == expected


def test_a_setting_torch_does_not_tell_is_none(precision_undone: Callable[[], None], computed: Computed) -> None:
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("this torch has no precision per backend")
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    found = fingerprint("cpu")
    assert found["float32_matmul_precision"] is None
    assert found["mkldnn.matmul.fp32_precision"] == "bf16"


def test_the_package_offers_it_at_its_top() -> None:
    assert difftrace.fingerprint is fingerprint
