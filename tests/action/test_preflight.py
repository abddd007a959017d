"""What is said of machines with AMD devices, on trees of files that show one as Linux does."""

from __future__ import annotations

from pathlib import Path

import pytest

from difftrace.determinism.profiles import CPU, GFX942, PORTABLE, ROCM
from pytest_difftrace.github import preflight
from pytest_difftrace.github.amd_devices import architecture, chosen, devices
from pytest_difftrace.github.torch_build import TorchBuild

HIP = TorchBuild("/torch/__init__.py", "2.9.0+rocm7.0", "7.0.51831", None)
GIB = 1 << 30
LLADA_8B = 16 * GIB


class Machine:
    """A root folder with /dev and /sys of a machine with MI300X devices."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.put("dev/kfd")
        self.put("sys/class/kfd/kfd/topology/nodes/0/properties", "simd_count 0\ngfx_target_version 0\n")
        self.put("sys/class/kfd/kfd/topology/nodes/0/gpu_id", "0\n")
        self.count = 0

    def add(self, target: int = 90402, used: int = GIB, total: int = 192 * GIB) -> str:
        self.count += 1
        node, minor, gpu_id = f"sys/class/kfd/kfd/topology/nodes/{self.count}", 127 + self.count, str(5000 + self.count)
        self.put(f"{node}/properties", f"gfx_target_version {target}\ndrm_render_minor {minor}\n")
        self.put(f"{node}/gpu_id", f"{gpu_id}\n")
        self.put(f"dev/dri/renderD{minor}")
        self.put(f"sys/class/drm/renderD{minor}/device/mem_info_vram_total", f"{total}\n")
        self.put(f"sys/class/drm/renderD{minor}/device/mem_info_vram_used", f"{used}\n")
        return gpu_id

    def put(self, name: str, text: str = "") -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text, encoding="ascii")

    def check(self, profile: str = GFX942, torch: TorchBuild | None = HIP, weights: int = LLADA_8B, **environment: str):
        return preflight.check(profile, torch, environment, self.root, weights)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_machine_that_is_ready_is_not_spoken_of(machine):
    machine.add()
    assert machine.check() == preflight.Findings()


def test_only_profiles_of_amd_devices_are_checked():
    assert [name for name in (CPU, PORTABLE, ROCM, GFX942) if preflight.applies(name)] == [ROCM, GFX942]


def test_a_container_without_the_device_files_is_told_which_options_it_lacks(tmp_path):
    found = preflight.check(ROCM, HIP, {}, tmp_path, 0)
    assert len(found.errors) == 1
    assert "--device=/dev/kfd --device=/dev/dri" in found.errors[0]


def test_device_files_that_may_not_be_opened_are_a_matter_of_groups(machine, monkeypatch):
    machine.add()
    real = preflight.amd_devices.openable
    monkeypatch.setattr(preflight.amd_devices, "openable", lambda root, file: "dri" not in file and real(root, file))
    [error] = machine.check().errors
    assert "render group" in error
    monkeypatch.setattr(preflight.amd_devices, "openable", lambda root, file: False)
    [error] = machine.check().errors
    assert error.startswith("/dev/kfd may not be opened")


@pytest.mark.parametrize(
    "torch", [None, TorchBuild("f", "2.13.0+cpu", None, None), TorchBuild("f", "2.13.0", None, "13.0")]
)
def test_a_torch_that_is_not_built_for_hip_is_an_error_beside_the_others(machine, torch):
    machine.add(target=90010)
    errors = machine.check(torch=torch).errors
    assert len(errors) == 2
    assert errors[0].startswith("torch is not built for HIP")


def test_the_architecture_has_to_be_the_profiles(machine):
    machine.add(target=90010)
    [error] = machine.check().errors
    assert "this device is gfx90a" in error
    assert machine.check(profile=ROCM).errors == ()


@pytest.mark.parametrize(
    ("target", "name"), [(90402, "gfx942"), (90010, "gfx90a"), (110000, "gfx1100"), (90500, "gfx950")]
)
def test_architectures_have_hexadecimal_steppings(target, name):
    assert architecture(target) == name


def test_memory_that_others_hold_is_told_with_what_the_model_needs(machine):
    machine.add(used=180 * GIB)
    [error] = machine.check().errors
    assert error.startswith("12.0 GiB of device memory are free and about 20.0 GiB are needed")
    assert machine.check(weights=0).errors == ()
    machine.add()
    assert machine.check().errors == (error,)  # another has enough, but the first is what models are loaded on
    assert machine.check(HIP_VISIBLE_DEVICES="1").errors == ()
    assert machine.check(HIP_VISIBLE_DEVICES="1,0").errors == ()


def test_other_processes_on_the_device_are_a_warning(machine):
    gpu_id, other = machine.add(), machine.add()
    machine.put(f"sys/class/kfd/kfd/proc/4711/vram_{gpu_id}", str(8 * GIB))
    machine.put(f"sys/class/kfd/kfd/proc/4712/vram_{other}", "0")
    found = machine.check()
    assert found.errors == ()
    [warning] = found.warnings
    assert "4711 hold 8.0 GiB" in warning
    assert machine.check(HIP_VISIBLE_DEVICES="1").warnings == ()


def test_indices_choose_among_the_devices_that_those_before_them_left(machine):
    for _ in range(4):
        machine.add()
    found = devices(machine.root)
    assert [one.gpu_id for one in found] == ["5001", "5002", "5003", "5004"]
    assert chosen(found, {"ROCR_VISIBLE_DEVICES": "2,3", "HIP_VISIBLE_DEVICES": "1"}) == [found[3]]
    assert chosen(found, {"ROCR_VISIBLE_DEVICES": "GPU-4b2c1a9f8e7d6c5b"}) == found
    [error] = machine.check(HIP_VISIBLE_DEVICES="7").errors
    assert error.startswith("HIP_VISIBLE_DEVICES leave none of the 4 GPUs")


@pytest.mark.parametrize("name", ["ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"])
@pytest.mark.parametrize(("indices", "left"), [("-1", 0), ("5", 0), ("0,-1,1", 1), ("1,0", 2), ("0,7,1", 1), ("", 2)])
def test_an_index_without_a_device_ends_the_list_and_a_choice_of_none_is_told_by_its_name(machine, name, indices, left):
    for _ in range(2):
        machine.add()
    assert len(chosen(devices(machine.root), {name: indices})) == left
    errors = machine.check(**{name: indices}).errors
    assert [error.startswith(f"{name} leave none of the 2 GPUs") for error in errors] == [True] * (left == 0)
