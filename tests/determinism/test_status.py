"""`status()` reads what is in force, each time anew, and claims nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

import difftrace
from difftrace.core.errors import DeterminismError, DeterminismWarning
from difftrace.determinism import variables
from difftrace.determinism.enforcement import enforce
from difftrace.determinism.switch_states import SwitchState


def _named(name: str) -> SwitchState:
    return next(state for state in difftrace.status().switches if state.name == name)


def test_outside_it_shows_what_is_found_and_claims_nothing(settings_now: Callable[[], dict[str, Any]]) -> None:
    before = settings_now()
    status = difftrace.status()
    assert not status
    assert not status.active
    assert not status.enforced
    assert status.profile == "cpu"
    found = {state.name: state for state in status.switches}
    assert found["deterministic_algorithms"].requested == "error"
    assert found["deterministic_algorithms"].effective == "default"
    assert found["deterministic_algorithms"].in_force is False
    assert settings_now() == before


def test_inside_everything_asked_for_is_in_force() -> None:
    with enforce(seed=3):
        status = difftrace.status()
        assert status
        assert (status.level, status.seed, status.missing, status.drift) == ("strict", 3, (), ())
        assert all(state.in_force is not False for state in status.switches if state.required)


def _turn_compiler_on() -> None:
    os.environ.pop("TORCH_COMPILE_DISABLE", None)
    if "torch._dynamo.eval_frame" in sys.modules:
        torch.compiler.set_stance("default")


_CHANGES: dict[str, Callable[[], object]] = {
    "deterministic_algorithms": lambda: torch.set_deterministic_debug_mode("default"),
    "attention_backend": lambda: torch.backends.cuda.enable_flash_sdp(True),
    "mkldnn.matmul.fp32_precision": lambda: torch.set_float32_matmul_precision("medium"),
    "threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "fill_uninitialized_memory": lambda: setattr(torch.utils.deterministic, "fill_uninitialized_memory", False),
    "compiler": _turn_compiler_on,
}


@pytest.mark.parametrize("switch", _CHANGES)
def test_it_turns_false_when_someone_changes_a_switch_and_says_which(
    switch: str, settings_now: Callable[[], dict[str, Any]]
) -> None:
    before = settings_now()
    with enforce(threads=torch.get_num_threads()) as held:
        held.check()
        _CHANGES[switch]()
        status = difftrace.status()
        assert not status.enforced
        assert switch in {state.name for state in status.drift}
        with pytest.raises(DeterminismError, match=f"{switch}: requested .*changed since determinism was enforced"):
            held.check()
    assert settings_now() == before


def test_under_warn_a_changed_switch_is_a_warning() -> None:
    with enforce(level="warn") as held:
        torch.set_deterministic_debug_mode("default")
        with pytest.warns(DeterminismWarning, match="deterministic_algorithms"):
            held.check()


def test_what_was_never_in_force_is_no_drift() -> None:
    with enforce():
        hash_seed = _named("PYTHONHASHSEED")
        assert hash_seed.in_force is (sys.flags.hash_randomization == 0)
        assert not difftrace.status().drift


def test_a_hash_seed_set_by_the_running_process_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    if not sys.flags.hash_randomization or variables.was_in_time("PYTHONHASHSEED", "31"):
        pytest.skip("this interpreter was started without hash randomisation")
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    assert _named("PYTHONHASHSEED").in_force is False
    monkeypatch.setenv("PYTHONHASHSEED", "31")
    assert _named("PYTHONHASHSEED").in_force is False


def test_another_profile_can_be_asked_about_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROCBLAS_USE_HIPBLASLT", raising=False)
    with enforce():
        status = difftrace.status("rocm-gfx942")
    assert status.profile == "rocm-gfx942"
    assert not status.enforced
    assert "ROCBLAS_USE_HIPBLASLT" in {state.name for state in status.missing}


def test_a_setting_that_this_torch_does_not_have_is_neither_in_force_nor_missing() -> None:
    if torch.version.cuda or torch.version.hip:
        pytest.skip("needs a torch built for the CPU")
    with enforce(profile="cuda"):
        state = _named("tunable_ops")
    assert state.in_force is None
    assert "not built for" in state.checked


_LOADED_INSIDE = """
import sys
from difftrace import enforce, status
with enforce() as held:
    assert "torch._dynamo" not in sys.modules
    import torch._dynamo
    held.check()
    print([s.effective for s in status().switches if s.name == "compiler"])
"""


def test_a_compiler_that_is_loaded_meanwhile_is_off_too() -> None:
    done = subprocess.run([sys.executable, "-c", _LOADED_INSIDE], capture_output=True, text=True, check=True)
    assert done.stdout == "['off']\n"


_REPORT = """
import json, os, sys
import torch
if "late" in sys.argv:
    torch.rand(8, 8) @ torch.rand(8, 8)
import difftrace
with difftrace.enforce(profile="cpu-portable", level="warn"):
    states = {s.name: [s.effective, s.in_force] for s in difftrace.status().switches}
print(json.dumps(states))
"""


@pytest.mark.skipif(not hasattr(os, "uname") or os.uname().machine != "x86_64", reason="x86 variables")
def test_the_portable_profile_takes_effect_before_the_first_operation_and_is_reported_late_after_it() -> None:
    def report(*arguments: str) -> dict[str, list[Any]]:
        environment = {name: value for name, value in os.environ.items() if name not in ("MKL_CBWR",)}
        command = [sys.executable, "-W", "ignore", "-c", _REPORT, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        states: dict[str, list[Any]] = json.loads(done.stdout)
        return states

    states = report()
    assert states["ATEN_CPU_CAPABILITY"] == ["avx2", True]
    # Some builds of torch have no MKL, or do not export what tells its branch.
    assert states["MKL_CBWR"] in (["COMPATIBLE", True], ["COMPATIBLE", None])
    assert states["threads"] == [1, True]
    if torch.backends.cpu.get_cpu_capability() != "AVX2":
        assert report("late")["ATEN_CPU_CAPABILITY"] == [torch.backends.cpu.get_cpu_capability().lower(), False]
