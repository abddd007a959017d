"""Inside `enforce` one machine repeats itself; outside, nothing has changed."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Callable
from functools import partial, reduce
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import difftrace
from difftrace.core.errors import DeterminismError, DeterminismWarning
from difftrace.determinism import enforcement, variables
from difftrace.determinism.enforcement import enforce
from difftrace.determinism.profiles import PROFILES
from difftrace.determinism.switches import ATTENTION_BACKENDS

Settings = Callable[[], dict[str, Any]]
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@pytest.fixture
def _nothing_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what this process is known to have taken from its environment, and afterwards what a test adds."""
    monkeypatch.setattr(variables, "_TAKEN", {})


def _device_in_use(monkeypatch: pytest.MonkeyPatch, in_use: bool = True) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: in_use)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", list)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", lambda states: None)


def test_the_settings_are_in_force_inside() -> None:
    with enforce():
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.get_float32_matmul_precision() == "highest"
        assert torch.backends.cuda.math_sdp_enabled()
        assert not torch.backends.cuda.flash_sdp_enabled()
        assert not torch.backends.cuda.mem_efficient_sdp_enabled()
        assert os.environ["TORCH_COMPILE_DISABLE"] == "1"


def test_reading_the_older_names_still_works_inside() -> None:
    for profile in ("cpu", "cuda"):
        with enforce(profile=profile):
            assert torch.backends.cuda.matmul.allow_tf32 is False
    with enforce(profile="cuda"):
        assert torch.backends.cudnn.allow_tf32 is False


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("profile", sorted(PROFILES.keys() - {"cpu-portable"}))
def test_everything_is_put_back_also_after_an_exception(settings_now: Settings, profile: str, fails: bool) -> None:
    before = settings_now()
    try:
        with enforce(seed=7, profile=profile, threads=torch.get_num_threads() + 1):
            assert settings_now() != before
            random.random(), np.random.rand(), torch.rand(3)
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        assert fails
    assert settings_now() == before


_OLD = [partial(torch.set_float32_matmul_precision, value) for value in ("highest", "high", "medium")]
_OLD += [partial(setattr, torch.backends.cuda.matmul, "allow_tf32", value) for value in (False, True)]
_OLD += [partial(setattr, torch.backends.cudnn, "allow_tf32", value) for value in (False, True)]
_NEW = [
    partial(setattr, module, "fp32_precision", value)
    for name, choices in {
        "cuda.matmul": ("none", "ieee", "tf32"),
        "cudnn.conv": ("none", "ieee", "tf32"),
        "mkldnn.matmul": ("none", "ieee", "bf16"),
        "": ("none", "ieee", "tf32"),
    }.items()
    if hasattr(module := reduce(getattr, filter(None, name.split(".")), torch.backends), "fp32_precision")
    for value in choices
]
_MODES = [partial(torch.set_deterministic_debug_mode, mode) for mode in ("default", "warn", "error")]


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(st.lists(st.sampled_from([*_OLD, *_NEW, *_MODES]), max_size=5), st.sampled_from(["cpu", "cuda", "rocm-gfx942"]))
def test_whatever_was_set_before_by_old_and_new_names_is_corrected_and_put_back(
    settings_now: Settings,
    precision_undone: Callable[[], None],
    changes: list[Callable[[], None]],
    profile: str,
) -> None:
    try:
        for change in changes:
            change()
        before = settings_now()
        with enforce(profile=profile):
            status = difftrace.status()
            assert status.enforced
            for state in status.switches:
                if "fp32_precision" in state.name:
                    assert state.effective in ("ieee", None)
        difftrace.status()
        assert settings_now() == before
    finally:
        precision_undone()


def test_a_reduced_precision_set_before_changes_no_product(precision_undone: Callable[[], None]) -> None:
    left, right = torch.rand(64, 64), torch.rand(64, 64)
    with enforce():
        expected = left @ right
    torch.set_float32_matmul_precision("medium")
    with enforce():
        assert torch.equal(left @ right, expected)


def test_all_three_generators_start_from_the_seed() -> None:
    def draw(seed: int) -> tuple[float, float, float]:
        with enforce(seed):
            return random.random(), float(np.random.rand()), float(torch.rand(1))

    first, again, other = draw(3), draw(3), draw(4)
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_seeds_beyond_numpys_range_are_accepted() -> None:
    with enforce(2**64 - 1):
        pass


def test_an_operation_without_a_deterministic_form_raises_under_strict_and_warns_under_warn() -> None:
    index = torch.zeros(2, dtype=torch.long)
    with enforce(), pytest.raises(RuntimeError, match="deterministic"):
        torch.zeros(3).put_(index, torch.ones(2))
    with enforce(level="warn"), pytest.warns(UserWarning, match="deterministic"):
        torch.zeros(3).put_(index, torch.ones(2))


def test_it_is_a_call_too_that_lasts_until_it_is_restored(settings_now: Settings) -> None:
    before = settings_now()
    held = enforce(seed=1)
    try:
        assert torch.are_deterministic_algorithms_enabled()
        assert difftrace.status().seed == 1
    finally:
        held.restore()
    assert settings_now() == before
    held.restore()
    assert settings_now() == before
    with pytest.raises(DeterminismError, match="enforce\\(\\) anew"), held:
        pass


def test_an_outer_one_cannot_be_restored_before_the_inner() -> None:
    outer = enforce(1)
    inner = enforce(2)
    try:
        with pytest.raises(DeterminismError, match="later enforce"):
            outer.restore()
    finally:
        inner.restore()
        outer.restore()
    assert not difftrace.status().active


@pytest.mark.usefixtures("_nothing_noted")
@pytest.mark.parametrize("preset", [None, ":16:8", ":4096:8"])
def test_the_workspace_setting_is_supplied_where_missing_and_kept_where_given(
    monkeypatch: pytest.MonkeyPatch, preset: str | None
) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    if preset:
        monkeypatch.setenv(WORKSPACE, preset)
    with enforce(profile="cuda"):
        assert os.environ[WORKSPACE] == (preset or ":4096:8")
    assert os.environ.get(WORKSPACE) == preset


@pytest.mark.parametrize("profile", ["rocm-gfx942", "cpu"])
def test_the_workspace_setting_is_left_alone_where_it_would_change_kernels(
    monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    with enforce(profile=profile):
        assert WORKSPACE not in os.environ


def test_garbage_in_the_workspace_setting_is_refused_and_nothing_has_changed(
    monkeypatch: pytest.MonkeyPatch, settings_now: Settings
) -> None:
    monkeypatch.setenv(WORKSPACE, "plenty")
    before = settings_now()
    with pytest.raises(DeterminismError, match=f"{WORKSPACE}: requested :4096:8, in force plenty"):
        enforce(profile="cuda")
    assert settings_now() == before
    with pytest.warns(DeterminismWarning, match=WORKSPACE), enforce(profile="cuda", level="warn"):
        assert os.environ[WORKSPACE] == "plenty"


def test_an_instruction_set_asked_for_after_the_first_operation_is_an_error(settings_now: Settings) -> None:
    torch.rand(8, 8) @ torch.rand(8, 8)
    found = torch.backends.cpu.get_cpu_capability().lower()
    if found == "avx2" or os.uname().machine != "x86_64":
        pytest.skip("this processor's widest instruction set is the portable one")
    before = settings_now()
    with pytest.raises(DeterminismError, match=f"ATEN_CPU_CAPABILITY: requested avx2, in force {found}") as caught:
        enforce(profile="cpu-portable")
    assert "export ATEN_CPU_CAPABILITY=avx2 before Python starts" in str(caught.value)
    assert settings_now() == before


@pytest.mark.usefixtures("_nothing_noted")
def test_a_device_variable_is_an_error_once_the_device_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROCBLAS_DEFAULT_ATOMICS_MODE", raising=False)
    _device_in_use(monkeypatch)
    with pytest.raises(DeterminismError, match="ROCBLAS_DEFAULT_ATOMICS_MODE: requested 0, in force unset"):
        enforce(profile="rocm-gfx942")
    assert "ROCBLAS_DEFAULT_ATOMICS_MODE" not in os.environ


@pytest.mark.usefixtures("_nothing_noted")
def test_a_device_variable_stays_in_force_if_the_device_was_first_used_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    with enforce(profile="rocm-gfx942"):
        _device_in_use(monkeypatch)
    assert "ROCBLAS_DEFAULT_ATOMICS_MODE" not in os.environ
    with enforce(profile="rocm-gfx942"):
        state = {switch.name: switch for switch in difftrace.status().switches}["ROCBLAS_DEFAULT_ATOMICS_MODE"]
        assert state.in_force is True


@pytest.mark.usefixtures("_nothing_noted")
def test_a_device_that_is_first_used_inside_is_no_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    with enforce(profile="rocm-gfx942") as held:
        _device_in_use(monkeypatch)
        held.check()
        assert difftrace.status().enforced
        monkeypatch.setenv("ROCBLAS_DEFAULT_ATOMICS_MODE", "1")
        assert "ROCBLAS_DEFAULT_ATOMICS_MODE" in {state.name for state in difftrace.status().drift}


@pytest.mark.usefixtures("_nothing_noted")
def test_an_unused_devices_variables_are_not_taken_for_seen_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROCBLAS_DEFAULT_ATOMICS_MODE", raising=False)
    with enforce(profile="rocm-gfx942"):
        pass
    _device_in_use(monkeypatch)
    with pytest.raises(DeterminismError, match="ROCBLAS_DEFAULT_ATOMICS_MODE"):
        enforce(profile="rocm-gfx942")


@pytest.mark.usefixtures("_nothing_noted")
@pytest.mark.parametrize("arguments", [{}, {"profile": "rocm-gfx942"}])
def test_an_amd_device_is_asked_for_its_architecture_only_after_its_variables_are_set(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, str]
) -> None:
    monkeypatch.delenv("ROCBLAS_DEFAULT_ATOMICS_MODE", raising=False)
    seen: list[str | None] = []

    def start(device: object) -> SimpleNamespace:
        seen.append(os.environ.get("ROCBLAS_DEFAULT_ATOMICS_MODE"))
        _device_in_use(monkeypatch)
        monkeypatch.setattr(torch.cuda, "get_rng_state_all", list)
        return SimpleNamespace(gcnArchName="gfx942:sramecc+:xnack-")

    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(torch.cuda, "get_device_properties", start)
    with enforce(device="cuda", **arguments) as held:  # type: ignore[arg-type]
        assert held.profile == "rocm-gfx942"
        held.check()
    assert set(seen) == {"0"}
    assert "ROCBLAS_DEFAULT_ATOMICS_MODE" not in os.environ


@pytest.mark.usefixtures("_nothing_noted")
def test_a_variable_that_must_not_be_set_is_taken_away_for_the_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIPBLASLT_TUNING_OVERRIDE_FILE", "tuned.txt")
    with enforce(profile="rocm-gfx942"):
        assert "HIPBLASLT_TUNING_OVERRIDE_FILE" not in os.environ
    assert os.environ["HIPBLASLT_TUNING_OVERRIDE_FILE"] == "tuned.txt"


def test_devices_that_are_not_in_use_are_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    for name in ("get_rng_state", "get_rng_state_all"):
        monkeypatch.setattr(torch.cuda, name, lambda *devices: asked.append(devices))
    with enforce():
        pass
    assert asked == []


def test_a_device_first_used_later_is_not_left_with_our_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[int] = []
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", waiting.append)
    before = torch.initial_seed()
    with enforce(seed=5):
        assert waiting == [5]
    assert waiting == [5, before]


def test_states_of_devices_in_use_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    put_back: list[object] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: ["state 0", "state 1"])
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", put_back.append)
    with enforce():
        assert put_back == []
    assert put_back == [["state 0", "state 1"]]


def test_it_nests(settings_now: Settings) -> None:
    before = settings_now()
    with enforce(1):
        with enforce(2, level="warn", threads=3):
            assert difftrace.status().level == "warn"
        assert difftrace.status().level == "strict"
        assert torch.are_deterministic_algorithms_enabled()
    assert settings_now() == before


def test_threads_are_set_where_asked_for_and_put_back() -> None:
    before = torch.get_num_threads()
    with enforce():
        assert torch.get_num_threads() == before
    with enforce(threads=before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("attention", ATTENTION_BACKENDS)
def test_one_attention_backend_is_enabled_and_no_other(attention: str) -> None:
    cuda = torch.backends.cuda
    with enforce(attention=attention):
        enabled = {
            "math": cuda.math_sdp_enabled(),
            "flash": cuda.flash_sdp_enabled(),
            "efficient": cuda.mem_efficient_sdp_enabled(),
            "cudnn": cuda.cudnn_sdp_enabled(),
        }
    assert [name for name, is_enabled in enabled.items() if is_enabled] == [attention]


def test_an_attention_backend_that_cannot_run_raises_in_the_model() -> None:
    query = torch.rand(1, 2, 4, 8)
    with enforce(attention="cudnn"), pytest.raises(RuntimeError, match=r"(?i)no (available|viable)"):
        torch.nn.functional.scaled_dot_product_attention(query, query, query)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": "lenient"}, "strict or warn, not 'lenient'"),
        ({"profile": "tpu"}, "no determinism profile 'tpu': choose cpu, cpu-portable, cuda"),
        ({"attention": "fast"}, "math, flash, efficient, cudnn, not 'fast'"),
        ({"device": "nowhere"}, "device 'nowhere' cannot be used here: "),
        ({"profile": "cuda", "device": "cpu"}, "cuda is not for device 'cpu': drop it, which means cpu"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str, settings_now: Settings) -> None:
    before = settings_now()
    with pytest.raises(DeterminismError, match=message):
        enforce(**arguments)
    assert settings_now() == before


def test_compiled_functions_run_as_written_whether_the_compiler_was_loaded_before_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stances = []
    dynamo = SimpleNamespace(_stance=SimpleNamespace(stance="default"))
    dynamo._set_stance = lambda stance: (stances.append(stance.stance), setattr(dynamo, "_stance", stance))

    def set_stance(name: str) -> None:
        stances.append(name)
        dynamo._stance = SimpleNamespace(stance=name)

    monkeypatch.setitem(__import__("sys").modules, "torch._dynamo.eval_frame", dynamo)
    monkeypatch.setattr(torch.compiler, "set_stance", set_stance)
    with enforce():
        assert stances == ["force_eager"]
    assert stances == ["force_eager", "default"]


def test_a_level_of_warnings_says_so_at_the_callers_line() -> None:
    with warnings.catch_warnings(record=True) as caught, pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("always")
        patch.setenv(WORKSPACE, "plenty")
        with enforce(profile="cuda", level="warn"):
            pass
    assert [warning.filename for warning in caught] == [__file__]


def test_the_package_offers_it_at_its_top() -> None:
    assert difftrace.enforce is enforcement.enforce
