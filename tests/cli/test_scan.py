"""`difftrace scan`: what it prints, what it exits with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from difftrace.core.schemas import violation
from difftrace.models.llada import RMSNorm

# Runs the command line and returns (exit status, stdout, stderr).
Outcome = tuple[int, str, str]
Command = Callable[..., Outcome]

_normalise = RMSNorm.forward


@pytest.fixture
def scan(difftrace: Command) -> Command:
    def run(*arguments: object) -> Outcome:
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
            return difftrace("scan", "--device", "cpu", *arguments)

    return run


def _with_dropout(norm: RMSNorm, x: Tensor) -> Tensor:
    return functional.dropout(_normalise(norm, x), 0.1, training=norm.training)


def _with_sums(norm: RMSNorm, x: Tensor) -> Tensor:
    return _normalise(norm, x).cumsum(-1)


def _broken(norm: RMSNorm, x: Tensor) -> Tensor:
    raise ZeroDivisionError("in the model")


def test_the_reference_model_chooses_its_attention_and_nothing_else(scan: Command) -> None:
    status, out, err = scan()
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "reference in float32"
    assert lines[2] == "backend-chosen: scaled_dot_product_attention (flash ran), 6 times"
    assert lines[3].startswith("  in   model.transformer.blocks.0, model.transformer.blocks.1, ")
    assert lines[-2].startswith("6 findings in ")
    assert lines[-1] == "0 of them random or nondeterministic on cpu"
    assert all(len(line) <= 100 for line in lines)


def test_json_output_is_one_object_that_keeps_its_schema(scan: Command) -> None:
    status, out, _ = scan("--json", "--dtype", "bfloat16")
    report = json.loads(out)
    assert status == 0
    assert violation("scan", report) is None
    assert report["model"] == {"name": "reference", "revision": None, "dtype": "bfloat16"}
    assert (report["device"], report["judged_for"], report["training"]) == ("cpu", "cpu", False)
    assert {found["sample"].split()[0] for found in report["findings"]} == {"bfloat16"}


def test_a_random_operation_in_training_mode_exits_with_1(scan: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RMSNorm, "forward", _with_dropout)
    assert scan()[0] == 0
    status, out, _ = scan("--train")
    assert status == 1
    assert "random: dropout, 13 times\n  in   model.transformer.blocks.0.attn_norm, " in out
    assert out.splitlines()[-1] == "13 of them random or nondeterministic on cpu"


def test_what_concerns_gpus_alone_is_listed_and_decides_where_it_is_asked_for(
    scan: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RMSNorm, "forward", _with_sums)
    status, out, _ = scan()
    assert status == 0
    assert "nondeterministic on CUDA/ROCm: cumsum, 13 times" in out
    status, out, _ = scan("--device-kind", "cuda")
    assert status == 1
    assert out.splitlines()[-1] == "13 of them random or nondeterministic on cuda"
    assert json.loads(scan("--device-kind", "cuda", "--json")[1])["judged_for"] == "cuda"


def test_a_model_without_a_tokenizer_is_fed_masks(scan: Command, conformance_folder: Path) -> None:
    status, out, _ = scan("--model", conformance_folder)
    assert status == 0
    assert "[1, 4, 16, " in out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--model", "absent/folder/of/nothing"), "no such folder"),
        (("--model", "owner/model"), "full 40-hex commit"),
        (("--dtype", "int3"), "dtype must be"),
        (("--device-kind", "abacus"), "abacus"),
    ],
)
def test_what_cannot_be_loaded_exits_with_2(scan: Command, arguments: tuple[str, ...], problem: str) -> None:
    status, out, err = scan(*arguments)
    assert (status, out) == (2, "")
    assert problem in err


def test_a_forward_that_fails_exits_with_2_and_one_line(scan: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RMSNorm, "forward", _broken)
    assert scan() == (2, "", "difftrace: unexpected ZeroDivisionError: in the model\n")


def test_the_help_says_what_the_exit_statuses_mean(scan: Command) -> None:
    status, out, _ = scan("--help")
    assert status == 0
    assert "Exit status: 1 if a random or nondeterministic operation is found" in " ".join(out.split())
