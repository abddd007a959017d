"""From a folder to a model that runs: arguments, identity, devices."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from difftrace.core.errors import ModelError
from difftrace.models import load_model

Tensors = dict[str, torch.Tensor]
WriteModel = Callable[..., Path]


@pytest.fixture
def folder(write_model: WriteModel, tiny_tensors: Tensors) -> Path:
    return write_model(tiny_tensors)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float32", torch.float32),
        ("fp32", torch.float32),
        ("bf16", torch.bfloat16),
        ("bfloat16", torch.bfloat16),
        ("fp16", torch.float16),
        (torch.float16, torch.float16),
    ],
)
def test_a_dtype_may_be_given_by_name_or_as_torch_has_it(
    folder: Path, dtype: str | torch.dtype, expected: torch.dtype
) -> None:
    loaded = load_model(folder, dtype=dtype, device="cpu")
    assert loaded.dtype == expected
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {expected}


@pytest.mark.parametrize("dtype", ["float8", "int8", torch.int64, "", None])
def test_a_dtype_that_cannot_run_is_refused_with_those_that_can(folder: Path, dtype: Any) -> None:
    with pytest.raises(ModelError, match="dtype must be auto, bfloat16, float16, float32, not"):
        load_model(folder, dtype=dtype, device="cpu")


@pytest.mark.parametrize("device", ["toaster", "cuda:99", "cpu:x", None, 1.5])
def test_a_device_that_is_not_there_is_refused_in_one_line(folder: Path, device: Any) -> None:
    with pytest.raises(ModelError, match=r"device .* cannot be used here") as raised:
        load_model(folder, device=device)
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="speaks of machines without an accelerator")
def test_without_an_accelerator_auto_means_the_cpu(folder: Path) -> None:
    assert load_model(folder).device == torch.device("cpu")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent: no such folder"):
        load_model(tmp_path / "absent")


def test_a_folder_without_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json: cannot read the model's config"):
        load_model(tmp_path)


def test_a_revision_of_a_local_folder_is_refused_since_it_would_mean_nothing(folder: Path) -> None:
    with pytest.raises(ModelError, match="a local folder has no revision"):
        load_model(folder, revision="0" * 40)


def test_the_identity_names_the_folder_and_digests_what_decides(folder: Path) -> None:
    identity = load_model(folder, device="cpu").identity
    assert (identity.name, identity.revision, identity.tokenizer) == ("model", None, None)
    assert (identity.vocab_size, identity.mask_token_id) == (48, 39)
    assert identity == load_model(str(folder), dtype="bf16", device="cpu").identity


def test_a_relative_path_gives_the_same_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert load_model(".", device="cpu").identity.name == "model"


def test_the_config_digest_follows_what_decides_and_nothing_else(
    write_model: WriteModel, tiny_tensors: Tensors, tiny_values: dict[str, Any]
) -> None:
    def digest(name: str, **changes: Any) -> str | None:
        folder = write_model(tiny_tensors, name=name, values={**tiny_values, **changes})
        return load_model(folder, device="cpu").identity.config

    plain = digest("plain")
    assert plain is not None
    assert digest("housekeeping", transformers_version="5.0", init_device="meta", use_cache=False) == plain
    assert digest("theta", rope_theta=10001.0) != plain
    assert digest("mask", mask_token_id=37) != plain


def test_the_end_of_turn_id_comes_from_the_tokenizer_where_the_config_has_none(
    write_model: WriteModel, tiny_tensors: Tensors, tiny_values: dict[str, Any], write_tokenizer: Callable[..., None]
) -> None:
    folder = write_model(tiny_tensors)
    write_tokenizer(folder)
    assert load_model(folder, device="cpu").config.eot_token_id == 37
    stated = write_model(tiny_tensors, name="stated", values={**tiny_values, "eot_token_id": 36})
    write_tokenizer(stated)
    assert load_model(stated, device="cpu").config.eot_token_id == 36


def test_an_end_of_turn_id_outside_the_vocabulary_is_refused(
    write_model: WriteModel, tiny_tensors: Tensors, write_tokenizer: Callable[..., None]
) -> None:
    folder = write_model(tiny_tensors)
    write_tokenizer(folder, eot=1000)
    with pytest.raises(ModelError, match="eot_token_id 1000"):
        load_model(folder, device="cpu")


@pytest.mark.parametrize("device_map", ["balanced", {"": "cpu"}])
def test_a_device_map_other_than_auto_is_refused(folder: Path, device_map: Any) -> None:
    with pytest.raises(ModelError, match="device_map must be 'auto' or None"):
        load_model(folder, device_map=device_map)


def test_a_device_map_and_a_device_contradict_each_other(folder: Path) -> None:
    with pytest.raises(ModelError, match="drop device='cpu'"):
        load_model(folder, device_map="auto", device="cpu")


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="needs accelerate")
@pytest.mark.skipif(torch.accelerator.is_available(), reason="compares with the CPU")
def test_a_model_spread_by_accelerate_computes_the_same(folder: Path) -> None:
    ids = torch.tensor([[1, 2, 3, 39, 39]])
    spread = load_model(folder, device_map="auto")
    with torch.no_grad():
        logits = spread.model(ids).logits
        expected = load_model(folder, device="cpu").model(ids).logits
    assert spread.device == torch.device("cpu")
    assert torch.equal(logits, expected)


def test_remote_code_in_a_folder_is_never_run(folder: Path, tmp_path: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    values["auto_map"] = {"AutoModel": "modeling_llada.LLaDAModelLM", "AutoConfig": "configuration_llada.LLaDAConfig"}
    (folder / "config.json").write_text(json.dumps(values))
    for name in ("modeling_llada.py", "configuration_llada.py"):
        (folder / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit('remote code ran')\n")
    load_model(folder, device="cpu")
    assert not (tmp_path / "ran").exists()


def test_loading_does_not_load_torchs_compiler() -> None:
    program = (
        "import sys; from difftrace.models import load_model, reference; "
        "load_model(reference.reference_model_path(), device='cpu'); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
