"""Two environments are comparable where it is known that they compute alike, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest

import difftrace
from difftrace.core.environments import ABSENT, FIELDS, comparable

HERE: dict[str, Any] = {
    "platform_key": "cpu",
    "architecture": "x86_64",
    "dtype": "bfloat16",
    "threads": 4,
    "cpu_capability": "AVX512",
    "attention_backend": "math",
    "deterministic_algorithms": "error",
    "mkldnn.matmul.fp32_precision": "ieee",
    "torch": "2.13.0",
    "blas": "mkl 2024.2",
    "python": "3.12.1",
    "cpu": "AMD EPYC",
    "canary": "sha256:" + "a" * 64,
}
OTHER_CANARY = "sha256:" + "b" * 64


def with_(**fields: Any) -> dict[str, Any]:
    return {**HERE, **fields}


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in HERE.items() if name not in names}


def test_equal_environments_are_identical() -> None:
    found = comparable(HERE, dict(reversed(HERE.items())))
    assert found.verdict == "identical"
    assert (found.fields, found.deciding) == ((), ())
    assert found
    assert str(found) == "identical"


@pytest.mark.parametrize(("a", "b"), [({}, {}), (None, None), ({}, HERE), (HERE, None)])
def test_nothing_is_comparable_with_nothing_even_itself(a: Any, b: Any) -> None:
    found = comparable(a, b)
    assert found.verdict == "not comparable"
    assert not found
    assert str(found) == "not comparable: one of them says nothing of where it ran"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threads", 1),
        ("dtype", "float32"),
        ("dtype", None),
        ("cpu_capability", "AVX2"),
        ("platform_key", "rocm-gfx942"),
        ("multiprocessors", 304),
        ("attention_backend", "flash"),
        ("deterministic_algorithms", "warn"),
        ("mkldnn.matmul.fp32_precision", "bf16"),
    ],
)
def test_what_is_pinned_or_is_the_hardwares_arithmetic_decides_though_canaries_agree(name: str, value: Any) -> None:
    found = comparable(HERE, with_(**{name: value}))
    assert found.verdict == "not comparable"
    assert found.deciding == (name,)
    assert found.fields == ((name, HERE.get(name, ABSENT), value),)
    assert str(found) == f"not comparable: {name}"


@pytest.mark.parametrize(("name", "value"), [("torch", "2.6.0"), ("blas", "open"), ("python", "3.10"), ("cpu", "Xeon")])
def test_versions_and_names_may_differ_where_canaries_agree(name: str, value: str) -> None:
    found = comparable(HERE, with_(**{name: value}))
    assert found.verdict == "bit-comparable"
    assert found.deciding == ()
    assert found.fields == ((name, HERE[name], value),)
    assert found
    assert str(found) == "bit-comparable (their canaries agree)"


def test_canaries_that_differ_decide_though_every_other_field_is_equal() -> None:
    found = comparable(HERE, with_(canary=OTHER_CANARY))
    assert found.verdict == "not comparable"
    assert found.deciding == ("canary",)
    assert str(found) == "not comparable: canary"


@pytest.mark.parametrize("other", [without("canary"), with_(canary=None)])
def test_without_canaries_nothing_but_identical_is_comparable(other: dict[str, Any]) -> None:
    assert comparable(other, other).verdict == "identical"
    for one in (HERE, other):
        found = comparable(one, {**other, "python": "3.13"})
        assert found.verdict == "not comparable"
        assert found.deciding == ("canary",)
        assert str(found) == "not comparable: no canary"


def test_a_switch_that_one_torch_does_not_have_is_left_to_the_canaries() -> None:
    assert comparable(HERE, with_(**{"mkldnn.matmul.fp32_precision": None})).verdict == "bit-comparable"
    assert comparable(HERE, without("mkldnn.matmul.fp32_precision")).verdict == "bit-comparable"


def test_hardware_that_one_side_does_not_name_is_not_taken_for_equal() -> None:
    assert comparable(HERE, without("threads")).deciding == ("threads",)


def test_a_field_nobody_knows_decides_where_both_sides_have_it() -> None:
    assert comparable(with_(tuning="a"), with_(tuning="b")).deciding == ("tuning",)
    assert comparable(HERE, with_(tuning="b")).verdict == "bit-comparable"


@pytest.mark.parametrize(("a", "b"), [(1, True), (1, 1.0), (None, "None"), ([1], [True]), ("nothing", ABSENT)])
def test_values_of_different_types_differ(a: Any, b: Any) -> None:
    one, other = ({**HERE, "x": value} if value is not ABSENT else HERE for value in (a, b))
    assert [field.name for field in comparable(one, other).fields] == ["x"]


def test_a_list_equals_the_tuple_it_was_before_it_went_through_a_file() -> None:
    assert comparable(with_(flags=("a", "b")), with_(flags=["a", "b"])).verdict == "identical"


def test_the_best_suspects_come_first_and_fields_of_one_side_alone_last() -> None:
    changed = {name: f"other {value}" for name, value in HERE.items()}
    names = [field.name for field in comparable({**HERE, "threads_of_old": 1}, {**changed, "dtype": "float16"}).fields]
    assert names == [
        "platform_key",
        "architecture",
        "dtype",
        "threads",
        "cpu_capability",
        "attention_backend",
        "deterministic_algorithms",
        "mkldnn.matmul.fp32_precision",
        "torch",
        "blas",
        "python",
        "cpu",
        "canary",
        "threads_of_old",
    ]


def test_it_can_be_asked_from_either_side() -> None:
    there = with_(threads=1, torch="2.6", extra=1)
    one, other = comparable(HERE, there), comparable(there, HERE)
    assert (one.verdict, one.deciding) == (other.verdict, other.deciding)
    assert [(f.name, f.b, f.a) for f in other.fields] == [tuple(f) for f in one.fields]


def test_every_field_says_why_it_is_there_and_stands_once() -> None:
    assert all(field.why for field in FIELDS)
    assert len({field.name for field in FIELDS}) == len(FIELDS)


def test_names_from_a_file_cannot_act_on_a_terminal() -> None:
    assert str(comparable(with_(**{"\x1b[31m": 1}), with_(**{"\x1b[31m": 2}))).isprintable()


def test_the_package_offers_it_at_its_top() -> None:
    assert difftrace.comparable is comparable
    assert isinstance(comparable({}, {}), difftrace.Comparability)
