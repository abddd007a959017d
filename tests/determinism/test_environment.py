"""The fingerprint says what decides the bits, and nothing about whose machine it is."""

from __future__ import annotations

import getpass
import json
import platform
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from difftrace.determinism.devices import platform_key
from difftrace.determinism.enforcement import enforce
from difftrace.determinism.environment import fingerprint


def test_it_names_what_decides_the_bits() -> None:
    with enforce():
        found = fingerprint("cpu", torch.bfloat16)
    assert found["platform_key"] == "cpu"
    assert found["torch"] == torch.__version__
    assert found["python"] == platform.python_version()
    assert found["threads"] == torch.get_num_threads()
    assert found["dtype"] == "bfloat16"
    assert found["deterministic_algorithms"] is True
    assert found["float32_matmul_precision"] == "highest"


def test_it_shows_what_is_in_force_when_it_is_read() -> None:
    assert fingerprint()["deterministic_algorithms"] is False
    with enforce():
        assert fingerprint()["deterministic_algorithms"] is True


def test_it_is_the_same_twice_and_plain_json() -> None:
    assert fingerprint() == fingerprint()
    assert json.loads(json.dumps(fingerprint())) == fingerprint()


def test_it_holds_neither_host_nor_user_nor_path() -> None:
    text = json.dumps(fingerprint())
    for private in (socket.gethostname(), str(Path.home()), str(Path.cwd()), f'"{getpass.getuser()}"'):
        if len(private) > 1:
            assert private not in text
    assert "/" not in text


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


def test_a_gpus_name_and_size_are_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name="AMD Instinct MI300X", multi_processor_count=304, gcnArchName="gfx942")
    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    found = fingerprint("cuda")
    assert (found["device"], found["multiprocessors"]) == ("AMD Instinct MI300X", 304)
    assert found["platform_key"] == "rocm-gfx942"


def test_precisions_set_per_backend_do_not_stop_it() -> None:
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("this torch has no precision per backend")
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        assert fingerprint()["float32_matmul_precision"] == "per backend"
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before
