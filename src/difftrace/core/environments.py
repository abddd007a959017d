"""Two environments held against each other: whether runs in them can be expected to agree, and what may part them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal, NamedTuple

from difftrace.core.text import printable

Verdict = Literal["identical", "bit-comparable", "not comparable"]

# "equal": it must be known and the same on both sides. "equal if known": the same, but one side may not know it (its
# torch has no such switch). "free": it may differ, since equal canaries show that it makes no difference.
Rule = Literal["equal", "equal if known", "free"]

CANARY: Final = "canary"


class Absent(Enum):
    """What stands for the value of a field that one of the environments does not have."""

    ABSENT = "nothing"

    def __str__(self) -> str:
        return self.value


ABSENT: Final = Absent.ABSENT


@dataclass(frozen=True)
class Field:
    """One field of a fingerprint.

    Attributes:
        name: its name.
        rule: what bit-comparable environments have to have of it.
        why: what it decides, and hence the rule.
    """

    name: str
    rule: Rule
    why: str


_KNOWN_TO_DECIDE: Final = (
    Field("platform_key", "equal", "other devices run other kernels"),
    Field("architecture", "equal", "other processors run other code"),
    Field("device_architecture", "equal", "kernels are chosen by it, by its settings too (xnack)"),
    Field("dtype", "equal", "what everything is rounded to; a canary is of one type"),
    Field("default_dtype", "equal", "what is rounded to where code names no type"),
    Field("autocast", "equal", "what products are rounded to behind the model's back"),
    Field("threads", "equal", "how long sums are split: the canary sees it for some lengths only"),
    Field("cpu_capability", "equal", "how wide torch's own kernels sum"),
    Field("multiprocessors", "equal", "how libraries split products and devices draw random numbers: for some sizes"),
    Field("flush_denormal", "equal", "whether the smallest numbers are zero"),
)

# Every switch of a determinism profile is of this kind, and so is a field nobody here knows.
_SWITCH: Final = Field("", "equal if known", "pinned because it decides, for some sizes and types only")

_VERSIONS_AND_NAMES: Final = (
    Field("torch", "free", "which kernels there are: the canary runs them"),
    Field("torch_git", "free", "the same, of builds that share a version"),
    Field("cuda", "free", "the toolkit's libraries, cuBLAS above all: the canary runs them"),
    Field("hip", "free", "the toolkit's libraries, rocBLAS above all: the canary runs them"),
    Field("device_blas", "free", "computes products on the device: the canary runs them"),
    Field("cudnn", "free", "computes attention and convolutions: the canary runs the former"),
    Field("blas", "free", "computes products on the CPU: the canary runs them"),
    Field("onednn", "free", "computes products in bf16 and activations on the CPU: the canary runs them"),
    Field("openmp", "free", "splits sums over threads: the canary runs some"),
    Field("driver", "free", "compiles what a library has no code for"),
    Field("flash_attn", "equal if known", "attention kernels of its own, which the canary does not run"),
    Field("triton", "free", "compiles kernels that models bring; torch's own compiler is off in a run"),
    Field("transformers", "free", "code of models: decides what is computed, not how"),
    Field("difftrace", "free", "code of models and samplers: decides what is computed, not how"),
    Field("sampler_source", "free", "code of a captured loop: decides what is computed, not how"),
    Field("tokenizers", "free", "which ids a prompt has: shows in the prompt"),
    Field("numpy", "free", "draws random numbers in loops that use it"),
    Field("python", "free", "draws random numbers in loops that use it"),
    Field("PYTHONHASHSEED", "free", "the order of sets of strings: no arithmetic"),
    Field("profile", "free", "stands for its switches, which are here one by one"),
    Field("device", "free", "a name; what it has of consequence stands in fields of its own"),
    Field("cpu", "free", "a name; what it has of consequence stands in fields of its own"),
    Field(CANARY, "equal", "shows that something else decides, not what: without it nothing is known to agree"),
)

# In the order in which they are suspects where runs differ; the switches, which are not listed, come in between.
FIELDS: Final = (*_KNOWN_TO_DECIDE, *_VERSIONS_AND_NAMES)

_RANKS: Final = {
    **{field.name: rank for rank, field in enumerate(_KNOWN_TO_DECIDE)},
    **{field.name: len(FIELDS) + rank for rank, field in enumerate(_VERSIONS_AND_NAMES)},
}
_RULES: Final = {field.name: field.rule for field in FIELDS}
# The switches that most often part two runs; the others follow by name.
_FIRST_SWITCHES: Final = ("attention_backend", "deterministic_algorithms", "float32_matmul_precision")


class Difference(NamedTuple):
    """A field that differs: its value in the one and in the other environment, `ABSENT` where there is none."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Comparability:
    """What two environments have to do with each other. True in a condition unless they are not comparable.

    Attributes:
        verdict: "identical": no field differs. "bit-comparable": what differs makes no difference, as far as canaries
            reach. "not comparable": something differs that decides bits, or not enough is known to say.
        fields: what differs, the best suspects first; fields that only one side has come last.
        deciding: names of those fields that make them not comparable, and "canary" where one is missing.
        reason: why that is the verdict, in a few words; none where they are identical.
    """

    verdict: Verdict
    fields: tuple[Difference, ...]
    deciding: tuple[str, ...]
    reason: str

    def __bool__(self) -> bool:
        return self.verdict != "not comparable"

    def __str__(self) -> str:
        if self.verdict == "not comparable":
            return f"{self.verdict}: {self.reason}"
        return f"{self.verdict} ({self.reason})" if self.reason else self.verdict


def comparable(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> Comparability:
    """Say whether runs in two environments (`difftrace.fingerprint()`, a baseline's `environment`) can agree in bits.

    They are identical where no field differs, and bit-comparable where no field differs that is pinned or belongs to
    the hardware's arithmetic, and their canaries agree: two hosts compute alike exactly when those do. `FIELDS` says
    which field is which. That is about arithmetic: other code of a model may still compute something else. An empty or
    missing environment is comparable with nothing, not even with another one.
    """
    differences = _differences(a or {}, b or {})
    if not a or not b:
        return Comparability("not comparable", differences, (), "one of them says nothing of where it ran")
    if not differences:
        return Comparability("identical", (), (), "")
    deciding = [difference.name for difference in differences if difference.name != CANARY and _decides(difference)]
    reasons = [printable(name) for name in deciding]
    if not (_known(a.get(CANARY)) and _known(b.get(CANARY))):
        reasons.append("no canary")
    elif a[CANARY] != b[CANARY]:
        reasons.append(CANARY)
    if not reasons:
        return Comparability("bit-comparable", differences, (), "their canaries agree")
    if len(reasons) > len(deciding):
        deciding.append(CANARY)
    return Comparability("not comparable", differences, tuple(deciding), ", ".join(reasons))


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Difference, ...]:
    every = (Difference(name, a.get(name, ABSENT), b.get(name, ABSENT)) for name in {*a, *b})
    return tuple(sorted((one for one in every if _text(one.a) != _text(one.b)), key=_suspicion))


def _suspicion(difference: Difference) -> tuple[bool, int, int, str]:
    name = difference.name
    first = _FIRST_SWITCHES.index(name) if name in _FIRST_SWITCHES else len(_FIRST_SWITCHES)
    return not _both(difference), _RANKS.get(name, len(_KNOWN_TO_DECIDE)), first, name


def _decides(difference: Difference) -> bool:
    rule = _RULES.get(difference.name, _SWITCH.rule)
    if rule == "equal if known":
        return _known(difference.a) and _known(difference.b)
    return rule == "equal"


def _both(difference: Difference) -> bool:
    return difference.a is not ABSENT and difference.b is not ABSENT


def _known(value: Any) -> bool:
    return value is not ABSENT and value is not None


def _text(value: Any) -> str:
    """Return what two values are equal by: what they are in a file, where 1, 1.0 and true are three things."""
    return json.dumps(value, sort_keys=True, default=repr)
