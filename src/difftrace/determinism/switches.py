"""How torch's settings are read, set and put back, under one name each. What they are set to stands in `profiles`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Final

import torch

from difftrace.determinism.profiles import Value

ATTENTION_BACKENDS: Final = ("math", "flash", "efficient", "cudnn")

_COMPILER_VARIABLE: Final = "TORCH_COMPILE_DISABLE"
_CONTRADICTED: Final = "torch does not say, since newer settings contradict it"


class UnreadableError(Exception):
    """This torch does not have the setting, or refuses to tell."""


@dataclass(frozen=True)
class Switch:
    """One setting of torch.

    Attributes:
        where: what is read, for people.
        read: returns its value; raises UnreadableError.
        write: sets it to a value that `read` can return.
        keep: returns a function that puts everything back that `write` changes.
    """

    where: str
    read: Callable[[], Value]
    write: Callable[[Any], None]
    keep: Callable[[], Callable[[], None]]


def _switch(where: str, read: Callable[[], Value], write: Callable[[Any], None]) -> Switch:
    """Return a switch whose value says all there is to put back."""

    def keep() -> Callable[[], None]:
        value = read()
        return lambda: write(value)

    return Switch(where, read, write, keep)


def _attribute(path: str, name: str) -> Switch:
    """Return the switch that is attribute `name` of the object `path` below torch.backends."""

    def owner() -> Any:
        return reduce(getattr, filter(None, path.split(".")), torch.backends)

    def read() -> Value:
        try:
            value: Value = getattr(owner(), name)
        except AttributeError as error:
            raise UnreadableError("this torch has no such setting") from error
        except RuntimeError as error:
            raise UnreadableError(_CONTRADICTED) from error
        return value

    return _switch("torch.backends", read, lambda value: setattr(owner(), name, value))


def _matmul_precision() -> Value:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError as error:
        raise UnreadableError(_CONTRADICTED) from error


def _older(switch: Switch, newer: Sequence[str], values: Sequence[str]) -> Switch:
    """Return `switch`, which torch does not tell while `newer` settings contradict it, so that it is kept all the same.

    One of `values` for all of them contradicts nothing.
    """

    def keep() -> Callable[[], None]:
        with suppress(UnreadableError):
            return switch.keep()
        children = [_attribute(path, "fp32_precision") for path in newer]
        before = [child.read() for child in children]
        try:
            for value in values:
                for child in children:
                    child.write(value)
                with suppress(UnreadableError):
                    return switch.keep()
        finally:
            for child, value_before in zip(children, before, strict=True):
                child.write(value_before)
        raise UnreadableError(_CONTRADICTED)

    return replace(switch, keep=keep)


# Whether partial sums may be narrow, and whether sums may be split at all (which torch can forbid since 2.9).
_REDUCTIONS: Final[dict[tuple[bool, bool], str]] = {
    (False, False): "off",
    (True, True): "on",
    (True, False): "narrow",
    (False, True): "split",
}


def _reduction(kind: str) -> Switch:
    """Return the switch for partial sums in `kind` ("bf16")."""
    name = f"allow_{kind}_reduced_precision_reduction"
    matmul: Any = torch.backends.cuda.matmul

    def read() -> Value:
        narrow = bool(getattr(matmul, name))
        return _REDUCTIONS[narrow, bool(getattr(matmul, f"{name}_split_k", narrow))]

    def write(value: str) -> None:
        narrow, split = next(flags for flags, text in _REDUCTIONS.items() if text == value)
        setattr(matmul, name, (narrow, split) if hasattr(matmul, f"{name}_split_k") else narrow)

    return _switch("torch.backends.cuda.matmul", read, write)


def _attention() -> Value:
    """Return the enabled backends: "math", "flash+math"; "none" if there is none."""
    cuda: Any = torch.backends.cuda
    enabled = (cuda.math_sdp_enabled, cuda.flash_sdp_enabled, cuda.mem_efficient_sdp_enabled, cuda.cudnn_sdp_enabled)
    named = zip(ATTENTION_BACKENDS, enabled, strict=True)
    return "+".join(sorted(name for name, is_enabled in named if is_enabled())) or "none"


def _set_attention(value: str) -> None:
    cuda = torch.backends.cuda
    wanted = value.split("+")
    enable = (cuda.enable_math_sdp, cuda.enable_flash_sdp, cuda.enable_mem_efficient_sdp, cuda.enable_cudnn_sdp)
    for name, switch in zip(ATTENTION_BACKENDS, enable, strict=True):
        switch(name in wanted)


def _tunable_ops() -> Value:
    try:
        return torch.cuda.tunable.is_enabled()
    except AttributeError as error:
        raise UnreadableError("this torch is not built for such devices") from error


def _compiler() -> Value:
    """Return "off" if compiled functions run as written, whether the compiler was loaded before or comes later."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    if dynamo is None:
        return "off" if os.environ.get(_COMPILER_VARIABLE) == "1" else "on"
    # Loaded while the variable was set, it has taken it over.
    disabled = getattr(sys.modules.get("torch._dynamo.config"), "disable", False)
    return "off" if disabled or dynamo._stance.stance == "force_eager" else "on"


def _turn_compiler_off(_: object) -> None:
    # Read when the compiler is loaded, which importing it here, for seconds, would hasten.
    os.environ[_COMPILER_VARIABLE] = "1"
    if "torch._dynamo.eval_frame" in sys.modules:
        torch.compiler.set_stance("force_eager")


def _keep_compiler() -> Callable[[], None]:
    variable = os.environ.get(_COMPILER_VARIABLE)
    before = sys.modules.get("torch._dynamo.eval_frame")
    stance = None if before is None else before._stance

    def put_back() -> None:
        if variable is None:
            os.environ.pop(_COMPILER_VARIABLE, None)
        else:
            os.environ[_COMPILER_VARIABLE] = variable
        after = sys.modules.get("torch._dynamo.eval_frame")
        if stance is not None and after is not None:
            after._set_stance(stance)
        elif after is not None:
            # Loaded in between, with what the variable said then.
            sys.modules["torch._dynamo.config"].disable = variable == "1"  # type: ignore[attr-defined]

    return put_back


_DEBUG_MODES: Final = ("default", "warn", "error")


def _enum(where: str, function: Callable[..., Any]) -> Switch:
    """Return the switch that is one of torch's getters which set when given something."""

    def read() -> Value:
        return str(function().name).lower()

    return _switch(where, read, lambda value: function(value))


SWITCHES: Final[dict[str, Switch]] = {
    "deterministic_algorithms": _switch(
        "torch.get_deterministic_debug_mode()",
        lambda: _DEBUG_MODES[torch.get_deterministic_debug_mode()],
        # The switch that use_deterministic_algorithms turns too, but that one also imports torch's compiler.
        torch.set_deterministic_debug_mode,
    ),
    "fill_uninitialized_memory": _switch(
        "torch.utils.deterministic",
        lambda: bool(torch.utils.deterministic.fill_uninitialized_memory),  # type: ignore[attr-defined]
        lambda value: setattr(torch.utils.deterministic, "fill_uninitialized_memory", value),
    ),
    "float32_matmul_precision": _older(
        _switch("torch.get_float32_matmul_precision()", _matmul_precision, torch.set_float32_matmul_precision),
        newer=("cuda.matmul", "mkldnn.matmul"),
        values=("ieee",),
    ),
    "cudnn.allow_tf32": _older(
        _attribute("cudnn", "allow_tf32"), newer=("cudnn.conv", "cudnn.rnn"), values=("tf32", "ieee")
    ),
    "fp32_precision": _attribute("", "fp32_precision"),
    **{
        f"{backend}.fp32_precision": _attribute(backend, "fp32_precision")
        for backend in (
            "cuda.matmul",
            "cudnn",
            "cudnn.conv",
            "cudnn.rnn",
            "mkldnn",
            "mkldnn.matmul",
            "mkldnn.conv",
            "mkldnn.rnn",
        )
    },
    "bf16_reduced_precision_reduction": _reduction("bf16"),
    "fp16_reduced_precision_reduction": _reduction("fp16"),
    "fp16_accumulation": _attribute("cuda.matmul", "allow_fp16_accumulation"),
    "attention_backend": _switch("torch.backends.cuda.*_sdp_enabled()", _attention, _set_attention),
    "math_attention_reduction": _switch(
        "torch.backends.cuda",
        torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed,
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp,
    ),
    "cudnn.deterministic": _attribute("cudnn", "deterministic"),
    "cudnn.benchmark": _attribute("cudnn", "benchmark"),
    "mkldnn.deterministic": _attribute("mkldnn", "deterministic"),
    "tunable_ops": _switch("torch.cuda.tunable.is_enabled()", _tunable_ops, lambda on: torch.cuda.tunable.enable(on)),
    "blas_library": _enum("torch.backends.cuda.preferred_blas_library()", torch.backends.cuda.preferred_blas_library),
    "rocm_attention_library": _enum(
        "torch.backends.cuda.preferred_rocm_fa_library()", torch.backends.cuda.preferred_rocm_fa_library
    ),
    "compiler": Switch(f"torch.compiler, {_COMPILER_VARIABLE}", _compiler, _turn_compiler_off, _keep_compiler),
    "threads": _switch("torch.get_num_threads()", torch.get_num_threads, torch.set_num_threads),
}
