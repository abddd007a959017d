"""What has to be set for a device to repeat itself, as one table. No torch, so that it can be read before torch is.

A *profile* is the set of rows that name it. Adding a device is adding rows.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from operator import methodcaller
from typing import Final, Literal

from difftrace.core.errors import DeterminismError

# Test runners then show the caller's line, not ours.
__tracebackhide__ = methodcaller("errisinstance", DeterminismError)

Value = str | int | bool | None

# Nothing is set; what is found is reported and recorded.
AS_FOUND: Final = "as found"

When = Literal[
    "interpreter start", "first CPU operation", "first product on the device", "first use of the device", "any time"
]

CPU: Final = "cpu"
PORTABLE: Final = "cpu-portable"
CUDA: Final = "cuda"
ROCM: Final = "rocm"
GFX942: Final = "rocm-gfx942"
GENERIC: Final = "generic"

PROFILES: Final = {
    CPU: "a CPU, as fast as it is",
    PORTABLE: "CPUs of several kinds that are to agree: pinned instruction set, library branch and threads",
    CUDA: "NVIDIA devices",
    GFX942: "AMD MI300X, MI300A and MI325X",
    ROCM: "AMD devices without rows of their own",
    GENERIC: "other devices (mps, xpu): what torch switches for all",
}

_ALL: Final = tuple(PROFILES)
_CPUS: Final = (CPU, PORTABLE)
_AMD: Final = (GFX942, ROCM)
_DEVICES: Final = (CUDA, *_AMD)


@dataclass(frozen=True)
class Row:
    """One switch of some profiles.

    Attributes:
        name: an environment variable's name in capitals, else a key of `difftrace.determinism.switches.SWITCHES`.
        value: what it is set to. For a variable None means that it must not be set; `AS_FOUND` leaves it alone.
        when: when it must have been set in order to take effect.
        why: what goes wrong without it.
        profiles: the profiles it belongs to.
        presets: other values of a variable that serve as well and are kept, as a regular expression.
        refuses: whether a variable with another value is an error; else it is replaced.
        required: whether determinism is not in force without it.
        machines: processor architectures it exists on; empty for all.
    """

    name: str
    value: Value
    when: When
    why: str
    profiles: tuple[str, ...]
    presets: str | None = None
    refuses: bool = False
    required: bool = True
    machines: tuple[str, ...] = ()

    @property
    def is_variable(self) -> bool:
        """Whether it is an environment variable, else a setting of torch."""
        return self.name.isupper()

    def accepts(self, value: Value) -> bool:
        """Return whether `value` is what the row asks for, or serves as well."""
        if self.value == AS_FOUND or value == self.value:
            return True
        return self.presets is not None and isinstance(value, str) and re.fullmatch(self.presets, value) is not None


_X86: Final = ("x86_64", "AMD64")

TABLE: Final = (
    Row(
        "PYTHONHASHSEED",
        "0",
        "interpreter start",
        "sets of strings iterate in another order in every process",
        _ALL,
        presets=r"\d+",
        required=False,
    ),
    Row(
        "ATEN_CPU_CAPABILITY",
        "avx2",
        "first CPU operation",
        "torch's own kernels sum in vectors as wide as the processor's",
        (PORTABLE,),
        machines=_X86,
    ),
    Row(
        "MKL_CBWR",
        "COMPATIBLE",
        "first CPU operation",
        "MKL chooses code by processor; it knows one branch that all x86 processors run, AMD's included",
        (PORTABLE,),
        presets="COMPATIBLE(,STRICT)?",
        machines=_X86,
    ),
    Row(
        "ONEDNN_MAX_CPU_ISA",
        "AVX2",
        "first CPU operation",
        "oneDNN compiles its products for the processor at hand",
        (PORTABLE,),
        machines=_X86,
    ),
    Row(
        "CUBLAS_WORKSPACE_CONFIG",
        ":4096:8",
        "first product on the device",
        "cuBLAS picks a workspace at random among streams, and with it the order of its sums",
        (CUDA,),
        presets=":16:8",
        refuses=True,
    ),
    Row(
        "CUBLAS_WORKSPACE_CONFIG",
        AS_FOUND,
        "first product on the device",
        "shrinks the 128 MiB that MI300 has by default and can change which kernel runs: the same in every run",
        _AMD,
    ),
    Row(
        "NVIDIA_TF32_OVERRIDE",
        None,
        "first product on the device",
        "cuBLAS and cuDNN compute in tf32 whatever torch asks them for",
        (CUDA,),
        presets="0",
    ),
    Row(
        "HSA_OVERRIDE_GFX_VERSION",
        AS_FOUND,
        "first use of the device",
        "kernels of another architecture run: the same in every run",
        _AMD,
    ),
    Row(
        "PYTORCH_TUNABLEOP_ENABLED",
        "0",
        "first use of the device",
        "tuning picks the product kernel that is fastest today",
        _DEVICES,
        required=False,
    ),
    Row(
        "TORCH_BLAS_PREFER_HIPBLASLT",
        "0",
        "first use of the device",
        "hipBLASLt, torch's default on MI300, has no switch against atomic sums",
        _AMD,
        required=False,
    ),
    Row(
        "ROCBLAS_USE_HIPBLASLT",
        "0",
        "first use of the device",
        "rocBLAS hands products on to hipBLASLt, which has no switch against atomic sums",
        _AMD,
    ),
    Row(
        "ROCBLAS_DEFAULT_ATOMICS_MODE",
        "0",
        "first use of the device",
        "rocBLAS adds partial sums atomically, in the order in which they come",
        _AMD,
    ),
    Row(
        "HIPBLASLT_TUNING_OVERRIDE_FILE",
        None,
        "first use of the device",
        "the file replaces product kernels by those tuned elsewhere",
        _AMD,
    ),
    Row(
        "TORCH_ROCM_FA_PREFER_CK",
        None,
        "first use of the device",
        "Composable Kernel attention in place of AOTriton's",
        _AMD,
        required=False,
    ),
    Row(
        "NCCL_ALGO",
        "Ring",
        "first use of the device",
        "with several devices the algorithm of a sum is chosen by its size and the machine",
        _AMD,
        required=False,
    ),
    Row(
        "NCCL_PROTO",
        "Simple",
        "first use of the device",
        "with several devices the protocol of a sum is chosen by its size and the machine",
        _AMD,
        required=False,
    ),
    Row(
        "deterministic_algorithms",
        "error",
        "any time",
        "operations without a deterministic form run all the same",
        _ALL,
    ),
    Row(
        "fill_uninitialized_memory",
        True,
        "any time",
        "memory read before it is written holds what was there",
        _ALL,
    ),
    Row("fp32_precision", "ieee", "any time", "what backends without a setting of their own follow", _ALL),
    Row("cuda.matmul.fp32_precision", "ieee", "any time", "fp32 products are computed in tf32", _ALL),
    Row("cudnn.fp32_precision", "ieee", "any time", "fp32 convolutions are computed in tf32", _ALL),
    Row("cudnn.conv.fp32_precision", "ieee", "any time", "tf32 is the default", _ALL),
    Row("cudnn.rnn.fp32_precision", "ieee", "any time", "tf32 is the default", _ALL),
    Row("mkldnn.fp32_precision", "ieee", "any time", "fp32 operations are computed in bf16 or tf32", _ALL),
    Row("mkldnn.matmul.fp32_precision", "ieee", "any time", "fp32 products are computed in bf16", _ALL),
    Row("mkldnn.conv.fp32_precision", "ieee", "any time", "fp32 convolutions are computed in bf16", _ALL),
    Row("mkldnn.rnn.fp32_precision", "ieee", "any time", "fp32 recurrences are computed in bf16", _ALL),
    # The older names of the same, after the newer ones: setting them sets those, for every device.
    Row(
        "float32_matmul_precision",
        "highest",
        "any time",
        "fp32 products are computed in bf16 or tf32",
        _ALL,
    ),
    Row("cudnn.allow_tf32", False, "any time", "fp32 convolutions are computed in tf32", _ALL),
    Row("bf16_reduced_precision_reduction", "off", "any time", "partial sums are rounded to bf16", _DEVICES),
    Row("fp16_reduced_precision_reduction", "off", "any time", "partial sums are rounded to fp16", _DEVICES),
    Row("fp16_accumulation", False, "any time", "products of fp16 are summed in fp16", _DEVICES),
    Row("attention_backend", "math", "any time", "attention is computed by whichever kernel fits", _ALL),
    Row("math_attention_reduction", False, "any time", "attention in bf16 and fp16 sums in its own type", _ALL),
    Row("cudnn.deterministic", True, "any time", "cuDNN and MIOpen sum atomically", _DEVICES),
    Row("cudnn.benchmark", False, "any time", "cuDNN and MIOpen pick what is fastest today", _DEVICES),
    Row("mkldnn.deterministic", True, "any time", "oneDNN may sum in another order", _CPUS),
    Row("tunable_ops", False, "any time", "tuning picks the product kernel that is fastest today", _DEVICES),
    Row("blas_library", "cublas", "any time", "hipBLASLt has no switch against atomic sums; this is rocBLAS", _AMD),
    Row("rocm_attention_library", "aotriton", "any time", "Composable Kernel attention in place of AOTriton's", _AMD),
    Row("compiler", "off", "any time", "torch.compile fuses and tunes by machine", _ALL),
    Row(
        "threads",
        AS_FOUND,
        "any time",
        "the number of threads decides how long sums are split",
        (CPU, *_DEVICES, GENERIC),
    ),
    Row("threads", 1, "any time", "the number of threads decides how long sums are split", (PORTABLE,)),
)


def rows(profile: str) -> tuple[Row, ...]:
    """Return the rows of `profile` that exist on this processor; raises DeterminismError for an unknown one."""
    if profile not in PROFILES:
        raise DeterminismError(f"there is no determinism profile {profile!r}: choose {', '.join(PROFILES)}")
    machine = platform.machine()
    return tuple(row for row in TABLE if profile in row.profiles and (not row.machines or machine in row.machines))


def early_rows(profile: str) -> tuple[Row, ...]:
    """Return the variables of `profile` that this process can still set, before anything has used torch."""
    return tuple(
        row for row in rows(profile) if row.is_variable and row.when != "interpreter start" and row.value != AS_FOUND
    )
