"""The layers file comes back as it was written, and anything else is refused in one line that names file and field."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from difftrace.core import limits
from difftrace.core.errors import FormatError, NewerFormatError, WriteError
from difftrace.core.layers_file import dump_layers, load_layers, parse_layers, save_layers
from difftrace.core.module_trace import (
    SKETCH_BUCKETS,
    CallRecord,
    GoldenLayers,
    ModuleRecord,
    ModuleTrace,
    StateRecord,
    TensorRecord,
    TraceOrigin,
)
from difftrace.core.recording import ModelIdentity
from difftrace.core.schemas import violation

DIGEST = "sha256:" + "ab" * 32

WEIGHT = StateRecord("weight", "parameter", "bfloat16", (2,), {"bfloat16": DIGEST})

LAYERS = GoldenLayers(
    TraceOrigin(
        DIGEST, 5, None, ModelIdentity("m\u00e9", None, DIGEST, DIGEST, None, 10, 9), {"threads": 1, "canary": DIGEST}
    ),
    ModuleTrace(
        modules=(
            ModuleRecord(("",), "Model", True, ()),
            ModuleRecord(("a", "b.0"), "Linear", True, (WEIGHT,)),
            ModuleRecord(("b",), "ModuleList", False, ()),
        ),
        tensors=(
            TensorRecord("int64", (1, 2), DIGEST, None, 0, None),
            TensorRecord("float32", (), DIGEST, 0.1, 3, tuple(n / 3 for n in range(SKETCH_BUCKETS))),
            TensorRecord("float32", (7,), None, None, 0, None),
        ),
        calls=(CallRecord(0, None, (0,), (1,)), CallRecord(1, 0, (0, 0), (1,)), CallRecord(1, 1, (), (2,))),
        draws_random_numbers=True,
    ),
)  # fmt: skip


def test_what_is_written_is_read_back() -> None:
    data = dump_layers(LAYERS)
    assert parse_layers(data, "x") == LAYERS
    assert dump_layers(parse_layers(data, "x")) == data
    assert violation("layers", json.loads(data)) is None


def test_a_file_of_format_0_1_is_still_read() -> None:
    assert parse_layers(edited("version", "0.1"), "x") == LAYERS


@pytest.mark.parametrize(("number", "width"), [(0.5, 4), (1 / 3, 8), (1e300, 8)])
def test_a_sketch_takes_half_the_room_where_nothing_is_lost(number: float, width: int) -> None:
    sketch = (number,) * SKETCH_BUCKETS
    tensors = (LAYERS.trace.tensors[0], replace(LAYERS.trace.tensors[1], sketch=sketch), LAYERS.trace.tensors[2])
    layers = replace(LAYERS, trace=replace(LAYERS.trace, tensors=tensors))
    data = dump_layers(layers)
    assert parse_layers(data, "x") == layers
    assert len(base64.b64decode(json.loads(data)["trace"]["tensors"][1]["sketch"])) == width * SKETCH_BUCKETS


def test_it_is_saved_and_loaded_and_an_unwritable_place_is_said(tmp_path: Path) -> None:
    save_layers(tmp_path / "new" / "l.json", LAYERS)
    assert load_layers(tmp_path / "new" / "l.json") == LAYERS
    with pytest.raises(WriteError, match="could not be written"):
        save_layers(tmp_path / "new" / "l.json" / "x", LAYERS)


def sealed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The file with a change made by someone who also adapted the digest."""
    document = json.loads(dump_layers(LAYERS))
    change(document)
    content = {key: value for key, value in document.items() if key != "digest"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    document["digest"] = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    return json.dumps(document).encode()


def edited(path: str, value: object) -> bytes:
    """The file with another value at a dotted path."""

    def change(document: Any) -> None:
        *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
        for key in parents:
            document = document[key]
        document[last] = value

    return sealed(change)


NAN = base64.b64encode(b"\xff" * 8 * SKETCH_BUCKETS).decode()

HOSTILE = {
    "truncated": (dump_layers(LAYERS)[:-20], "is not complete JSON"),
    "not text": (b"\xff\xfe", "is not UTF-8"),
    "a list": (b"[]", r'\$.format: is not "difftrace-layers", so this is no layers file'),
    "a baseline": (edited("format", "difftrace-baseline"), "this is no layers file"),
    "no version": (edited("version", 1), r"\$.version: is not a version"),
    "never released": (edited("version", "0.0"), "0.0 was never released"),
    "changed afterwards": (dump_layers(LAYERS).replace(b'"step": 5', b'"step": 6'), r"\$.digest: does not match"),
    "missing field": (sealed(lambda d: d["origin"].pop("step")), r"\$.origin: 'step' is a required property"),
    "unknown field": (edited("trace.more", 1), r"\$.trace: .*'more' was unexpected"),
    "key twice": (
        dump_layers(LAYERS).replace(b'"digest"', b'"digest": 1, "digest"', 1),
        "gives the key 'digest' twice",
    ),
    "half a character": (edited("trace.modules.1.kind", "\ud800"), "holds half a surrogate pair"),
    "no modules": (edited("trace.modules", []), r"\$.trace.modules: .*"),
    "another first module": (edited("trace.modules.0.names", ["x"]), "is not the model itself"),
    "one name for two": (edited("trace.modules.2.names", ["a"]), r"modules\[2\].names: 'a' is the name of two modules"),
    "a dotted parameter": (edited("trace.modules.1.state.0.name", "a.b"), r"state\[0\].name: 'a.b' does not match"),
    "a module that is not there": (edited("trace.calls.2.module", 3), r"calls\[2\].module: is 3, but there are 3"),
    "a tensor that is not there": (edited("trace.calls.1.inputs", [3]), r"calls\[1\]: refers to tensor 3, but there"),
    "a negative tensor": (edited("trace.calls.1.inputs", [-1]), r"calls\[1\].inputs\[0\]: -1 is less than"),
    "two roots": (edited("trace.calls.1.parent", None), r"calls\[1\].parent: is no call that was going on"),
    "a later parent": (edited("trace.calls.1.parent", 2), r"calls\[1\].parent: is no call"),
    "its own parent": (edited("trace.calls.0.parent", 0), r"calls\[0\].parent: is no call"),
    "a first call of a part": (edited("trace.calls.0.module", 1), "the first call is not that of the model itself"),
    "a sketch alone": (edited("trace.tensors.1.norm", None), "norm and sketch must both be there or neither"),
    "a short sketch": (edited("trace.tensors.1.sketch", "AAAA"), "holds 3 bytes, not 67 numbers of 4 or 8"),
    "a long sketch": (edited("trace.tensors.1.sketch", "A" * 1000), r"tensors\[1\].sketch: .* is too long"),
    "no base64": (edited("trace.tensors.1.sketch", "?" * 716), r"tensors\[1\].sketch: is not base64"),
    "a sketch of NaN": (edited("trace.tensors.1.sketch", NAN), "holds a number that is NaN or infinite"),
    "a huge norm": (dump_layers(LAYERS).replace(b'"norm": 0.1', b'"norm": 1e999'), "which is too large"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_anything_else_is_refused_in_one_line(case: str) -> None:
    data, says = HOSTILE[case]
    with pytest.raises(FormatError, match=says) as caught:
        parse_layers(data, "l.json")
    assert str(caught.value).startswith("l.json: ")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_call_within_one_that_has_ended_is_refused() -> None:
    def change(document: dict[str, Any]) -> None:
        document["trace"]["calls"][2]["parent"] = 0
        document["trace"]["calls"].append({"module": 1, "parent": 1, "inputs": [], "outputs": []})

    with pytest.raises(FormatError, match=r"calls\[3\].parent: is no call that was going on then"):
        parse_layers(sealed(change), "l.json")


def test_a_newer_file_is_told_from_a_broken_one() -> None:
    with pytest.raises(NewerFormatError, match=r"written by a newer pytest-difftrace; this one reads up to 0\.2"):
        parse_layers(edited("version", "1.0"), "l.json")


def test_a_file_that_is_too_large_or_missing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FormatError, match=r"absent.json: cannot be read"):
        load_layers(tmp_path / "absent.json")
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(limits.MAX_LAYERS_BYTES + 1)
    with pytest.raises(FormatError, match="is larger than the limit"):
        load_layers(large)


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    origin = TraceOrigin(DIGEST, 5, None, None, {"x": float("nan")})
    with pytest.raises(FormatError, match="holds a value that JSON cannot"):
        save_layers(tmp_path / "l.json", GoldenLayers(origin, LAYERS.trace))
    assert not (tmp_path / "l.json").exists()
