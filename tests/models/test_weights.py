"""Checkpoints as they lie on disk: found, checked against the architecture, digested, cast."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from difftrace.core.errors import ModelError
from difftrace.models import load_model
from difftrace.models.weights import Checkpoint, open_checkpoint

Tensors = dict[str, torch.Tensor]
WriteModel = Callable[..., Path]
WTE = "model.transformer.wte.weight"
NORM = "model.transformer.ln_f.weight"


def _stored(folder: Path, **options: Any) -> Tensors:
    return load_model(folder, device="cpu", **options).model.state_dict()


@pytest.mark.parametrize("shards", [0, 1, 3])
def test_every_tensor_arrives_bit_for_bit_from_one_file_or_several(
    write_model: WriteModel, tiny_tensors: Tensors, shards: int
) -> None:
    loaded = _stored(write_model(tiny_tensors, shards=shards))
    assert loaded.keys() == tiny_tensors.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tiny_tensors.items())


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("wanted", [torch.bfloat16, torch.float16, torch.float32])
def test_stored_precision_is_cast_once_to_the_wanted_one(
    write_model: WriteModel, tiny_tensors: Tensors, stored: torch.dtype, wanted: torch.dtype
) -> None:
    tensors = {name: tensor.to(stored) for name, tensor in tiny_tensors.items()}
    folder = write_model(tensors)
    assert {tensor.dtype for tensor in _stored(folder).values()} == {stored}
    cast = _stored(folder, dtype=wanted)
    assert all(torch.equal(cast[name], tensor.to(wanted)) for name, tensor in tensors.items())


def test_auto_takes_the_precision_that_most_parameters_are_stored_in(
    write_model: WriteModel, tiny_tensors: Tensors
) -> None:
    tensors = {name: t if "norm" in name or "ln_f" in name else t.bfloat16() for name, t in tiny_tensors.items()}
    loaded = load_model(write_model(tensors), device="cpu")
    assert loaded.dtype == torch.bfloat16
    assert {tensor.dtype for tensor in loaded.model.state_dict().values()} == {torch.bfloat16}


def test_loaded_parameters_need_no_gradient_and_the_model_is_in_evaluation_mode(
    write_model: WriteModel, tiny_tensors: Tensors
) -> None:
    model = load_model(write_model(tiny_tensors), device="cpu").model
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_missing_unexpected_and_misshapen_tensors_are_named_in_one_error(
    write_model: WriteModel, tiny_tensors: Tensors
) -> None:
    tiny_tensors["model.transformer.extra.weight"] = tiny_tensors.pop(NORM)
    tiny_tensors[WTE] = tiny_tensors[WTE][:47].clone()
    with pytest.raises(ModelError) as raised:
        load_model(write_model(tiny_tensors), device="cpu")
    message = str(raised.value)
    assert f"1 missing: {NORM}" in message
    assert "1 unexpected: model.transformer.extra.weight" in message
    assert f"1 misshapen: {WTE} (is [47, 16], must be [48, 16])" in message
    assert "\n" not in message


def test_an_error_about_many_tensors_stays_readable(write_model: WriteModel, tiny_tensors: Tensors) -> None:
    with pytest.raises(ModelError, match=r"20 missing: .* and 8 more") as raised:
        load_model(write_model({WTE: tiny_tensors[WTE]}), device="cpu")
    assert len(str(raised.value)) < 1500


@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_integer_weights_are_refused_rather_than_read_as_numbers(
    write_model: WriteModel, tiny_tensors: Tensors, dtype: str
) -> None:
    quantised = {name: tensor.to(torch.int8) for name, tensor in tiny_tensors.items()}
    with pytest.raises(ModelError, match="I8"):
        load_model(write_model(quantised), dtype=dtype, device="cpu")


def test_a_single_integer_tensor_is_refused_by_name(write_model: WriteModel, tiny_tensors: Tensors) -> None:
    tiny_tensors[NORM] = tiny_tensors[NORM].to(torch.int8)
    with pytest.raises(ModelError, match=r"unsupported dtype: model\.transformer\.ln_f\.weight \(I8\)"):
        load_model(write_model(tiny_tensors), device="cpu")


@pytest.mark.parametrize("kept", [0, 4, 8, 100, -1])
def test_a_truncated_file_is_refused(write_model: WriteModel, tiny_tensors: Tensors, kept: int) -> None:
    folder = write_model(tiny_tensors)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"model\.safetensors: truncated"):
        load_model(folder, device="cpu")


def _safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04\x95" + b"junk" * 20,
        _safetensors(b"[[" * 20),
        _safetensors(b"[" * 100_000),
        _safetensors([1, 2]),
        _safetensors({"a": 1}),
        _safetensors({"a": {"dtype": "F32", "shape": [1]}}),
        _safetensors({"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 4]}}, b"1234"),
        _safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 10**12]}}, b"1234"),
        _safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 4]}}, b"1234"),
        _safetensors({"__metadata__": {"format": "pt"}}),
    ],
    ids=["pickle", "json", "deep", "list", "number", "no-offsets", "shape", "beyond", "before", "no-tensors"],
)
def test_a_file_that_is_no_checkpoint_gives_one_line_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors: ") as raised:
        open_checkpoint(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_header_that_contradicts_its_data_is_refused(write_model: WriteModel, tiny_tensors: Tensors) -> None:
    folder = write_model(tiny_tensors)
    file = folder / "model.safetensors"
    content = file.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    begin, end = header[NORM]["data_offsets"]
    header[NORM]["data_offsets"] = [begin, end - 4]
    file.write_bytes(_safetensors(header, content[8 + length :]))
    with pytest.raises(ModelError, match="cannot read the weights"):
        load_model(folder, device="cpu")


def test_a_folder_without_safetensors_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds neither model\.safetensors nor model\.safetensors\.index\.json$"):
        open_checkpoint(tmp_path)


def test_a_folder_of_pickles_is_refused_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin would need unpickling, which is never done"):
        open_checkpoint(tmp_path)


def _index(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = folder / "model.safetensors.index.json"
    return path, json.loads(path.read_text())


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/secret.safetensors", "sub/x.safetensors", ".."])
def test_a_shard_outside_the_folder_is_refused(
    write_model: WriteModel, tiny_tensors: Tensors, tmp_path: Path, shard: str
) -> None:
    folder = write_model(tiny_tensors, shards=2)
    save_file({NORM: tiny_tensors[NORM]}, tmp_path / "secret.safetensors")
    path, index = _index(folder)
    index["weight_map"][NORM] = shard
    path.write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"no plain file name|is not there"):
        open_checkpoint(folder)


def test_a_missing_shard_is_named(write_model: WriteModel, tiny_tensors: Tensors) -> None:
    folder = write_model(tiny_tensors, shards=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"shard model-00002-of-00002\.safetensors is named in .* but is not there"):
        open_checkpoint(folder)


def test_a_tensor_that_the_index_places_in_the_wrong_shard_is_named(
    write_model: WriteModel, tiny_tensors: Tensors
) -> None:
    folder = write_model(tiny_tensors, shards=2)
    path, index = _index(folder)
    other = {f"model-0000{n}-of-00002.safetensors" for n in (1, 2)} - {index["weight_map"][NORM]}
    index["weight_map"][NORM] = other.pop()
    path.write_text(json.dumps(index))
    with pytest.raises(ModelError, match=rf"shards do not hold what the index says: 1 missing: {NORM}"):
        open_checkpoint(folder)


def test_a_tensor_in_two_shards_is_refused(write_model: WriteModel, tiny_tensors: Tensors) -> None:
    folder = write_model(tiny_tensors, shards=2)
    for file in folder.glob("model-*.safetensors"):
        save_file(tiny_tensors, file)
    with pytest.raises(ModelError, match="lies in several shards"):
        open_checkpoint(folder)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"weight_map": 3}', '{"weight_map": {}}', "[" * 100_000])
def test_an_index_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ModelError, match=r"model\.safetensors\.index\.json: "):
        open_checkpoint(tmp_path)


class TestDigest:
    @pytest.fixture
    def digest(self, write_model: WriteModel) -> Callable[..., str]:
        count = iter(range(100))

        def digest(tensors: Tensors, **options: Any) -> str:
            checkpoint: Checkpoint = open_checkpoint(write_model(tensors, name=f"model{next(count)}", **options))
            return checkpoint.digest()

        return digest

    def test_does_not_depend_on_how_the_tensors_are_dealt_out(
        self, digest: Callable[..., str], tiny_tensors: Tensors
    ) -> None:
        single = digest(tiny_tensors)
        assert single.startswith("sha256:")
        assert len(single) == 71
        assert digest(tiny_tensors, shards=1) == digest(tiny_tensors, shards=3) == single

    def test_changes_with_a_single_bit(self, digest: Callable[..., str], tiny_tensors: Tensors) -> None:
        before = digest(tiny_tensors)
        tiny_tensors[WTE].view(torch.int32)[3, 5] ^= 1
        assert digest(tiny_tensors) != before

    def test_changes_with_the_stored_dtype_of_equal_bytes(
        self, digest: Callable[..., str], tiny_tensors: Tensors
    ) -> None:
        as_bf16 = {name: tensor.bfloat16() for name, tensor in tiny_tensors.items()}
        as_fp16 = {name: tensor.view(torch.float16) for name, tensor in as_bf16.items()}
        assert digest(as_bf16) != digest(as_fp16)

    def test_changes_with_the_shape_of_equal_bytes(self, digest: Callable[..., str], tiny_tensors: Tensors) -> None:
        before = digest(tiny_tensors)
        tiny_tensors[WTE] = tiny_tensors[WTE].reshape(16, 48)
        assert digest(tiny_tensors) != before

    def test_changes_when_two_tensors_trade_names(self, digest: Callable[..., str], tiny_tensors: Tensors) -> None:
        before = digest(tiny_tensors)
        block = "model.transformer.blocks.0"
        first, second = f"{block}.attn_norm.weight", f"{block}.ff_norm.weight"
        tiny_tensors[first], tiny_tensors[second] = tiny_tensors[second], tiny_tensors[first]
        assert digest(tiny_tensors) != before

    def test_is_of_what_is_stored_whatever_it_is_cast_to(self, write_model: WriteModel, tiny_tensors: Tensors) -> None:
        folder = write_model(tiny_tensors)
        weights = {load_model(folder, dtype=dtype, device="cpu").identity.weights for dtype in ("auto", "bf16")}
        assert weights == {open_checkpoint(folder).digest()}
