"""Versions are found where they stand, and nothing is made up where they do not."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from difftrace.determinism import libraries
from difftrace.determinism.libraries import plain, processor, torch_libraries

MKL = """PyTorch built with:
  - GCC 13.3
  - Intel(R) oneAPI Math Kernel Library Version 2024.2-Product Build 20240605 for Intel(R) 64 architecture applications
  - Intel(R) MKL-DNN v3.12.0 (Git Hash 80afa71049cd69a3df32adcccb623b12cd7baa22)
  - OpenMP 201511 (a.k.a. OpenMP 4.5)
  - Build settings: BLAS_INFO=mkl, BUILD_TYPE=Release, LAPACK_INFO=mkl, TORCH_VERSION=2.13.0,
"""
ARM = """PyTorch built with:
  - GCC 10.2
  - Intel(R) MKL-DNN v3.3.2 (Git Hash 2dc95a2ad0841e29db8b22fbccaf3e5da7992b01)
  - OpenMP 201511 (a.k.a. OpenMP 4.5)
  - LAPACK is enabled (usually provided by MKL)
  - Build settings: BLAS_INFO=open, BUILD_TYPE=Release, CXX_COMPILER=/opt/rh/devtoolset-10/root/usr/bin/c++,
"""
MAC = """PyTorch built with:
  - clang 14.0.0
  - LAPACK is enabled (usually provided by MKL)
  - Build settings: BLAS_INFO=accelerate, BUILD_TYPE=Release,
"""


@pytest.mark.parametrize(
    ("config", "blas", "onednn", "openmp"),
    [
        (MKL, "mkl 2024.2-Product Build 20240605", "3.12.0", "201511"),
        (ARM, "open", "3.3.2", "201511"),
        (MAC, "accelerate", None, None),
        ("", None, None, None),
        ("something else entirely", None, None, None),
    ],
)
def test_what_torch_says_of_its_libraries_is_read(
    config: str, blas: str | None, onednn: str | None, openmp: str | None
) -> None:
    assert torch_libraries(config) == {"blas": blas, "onednn": onednn, "openmp": openmp}


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel\t\t: 1\nmodel name\t: AMD EPYC 9654\n", "AMD EPYC 9654"),
        ("CPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd4f\n", "implementer 0x41 part 0xd4f"),
        ("CPU implementer\t: 0x41\n", None),
        ("", None),
    ],
)
def test_the_processor_has_the_name_it_gives_itself(cpuinfo: str, name: str | None) -> None:
    assert processor(cpuinfo) == name


def test_names_hold_neither_separators_of_paths_nor_line_breaks() -> None:
    assert plain("AMD Instinct MI250X/MI250") == "AMD Instinct MI250X-MI250"
    assert plain(" a\n b\\c\t") == "a b-c"
    assert plain(None) is None


def _files(monkeypatch: pytest.MonkeyPatch, **contents: str) -> None:
    monkeypatch.setattr(libraries, "_first_lines", lambda path: contents.get(path.parent.name, ""))


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  Tue Jun  6 22:20:39 UTC 2023\n", "535.54.03"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build  (someone@some-host)\n",
            "540.4.0",
        ),
        ("something else\n", None),
        ("", None),
    ],
)
def test_nvidias_driver_is_known_by_its_version_without_who_built_it(
    monkeypatch: pytest.MonkeyPatch, line: str, version: str | None
) -> None:
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(libraries, "_first_lines", lambda path: line if path.parts[1] == "proc" else "")
    assert libraries.driver() == version
    monkeypatch.setattr(libraries, "_first_lines", lambda path: "550.54.15\n" if path.parts[1] == "sys" else line)
    assert libraries.driver() == "550.54.15"


def test_amds_driver_is_known_where_its_module_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.4.43483")
    _files(monkeypatch, amdgpu="6.12.12\n")
    assert libraries.driver() == "6.12.12"
    _files(monkeypatch)
    assert libraries.driver() is None


def test_a_file_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert libraries._first_lines(tmp_path / "version") == ""


def _cublas_get_property(which: int, number: Any) -> int:
    number._obj.value = (12, 8, 4)[which]
    return 0


def _rocblas_get_version_string(text: Any, size: ctypes.c_size_t) -> int:
    text.value = b"4.4.1.0-2c1d9f5"[: size.value]
    return 0


def test_the_devices_product_library_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    library = SimpleNamespace(
        cublasGetProperty=_cublas_get_property, rocblas_get_version_string=_rocblas_get_version_string
    )
    monkeypatch.setattr(libraries, "_loaded", lambda name: library)
    assert libraries._cublas() == "cublas 12.8.4"
    assert libraries._rocblas() == "rocblas 4.4.1.0-2c1d9f5"


def test_a_product_library_that_refuses_or_is_not_loaded_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = SimpleNamespace(cublasGetProperty=lambda *_: 1, rocblas_get_version_string=lambda *_: 1)
    for library in (refusing, None):
        monkeypatch.setattr(libraries, "_loaded", lambda name, found=library: found)
        assert libraries._cublas() is None
        assert libraries._rocblas() is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_library_is_found_in_memory_and_none_is_loaded_for_the_question() -> None:
    found = libraries._loaded("libtorch_cpu")
    assert found is not None
    assert Path(found._name).parent == Path(torch.__file__).parent / "lib"
    assert libraries._loaded("libno_such_library") is None


def test_a_package_that_is_not_installed_has_no_version() -> None:
    assert libraries._package("no-such-package-anywhere") is None
    assert libraries._package("torch") == torch.__version__
