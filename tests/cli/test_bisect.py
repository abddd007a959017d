"""`difftrace bisect` and `difftrace layers`: from a baseline to the name of a module, and every way to fail."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from difftrace.core.baseline import load, save
from difftrace.core.layers_file import load_layers
from difftrace.core.schemas import violation
from difftrace.models.reference import reference_model_path

Outcome = tuple[int, str, str]
Command = Callable[..., Outcome]

BASELINE = Path(__file__).parents[2] / "examples/quickstart/__difftrace__/test_quickstart/test_sum.json"
Q_PROJ = "model.transformer.blocks.2.q_proj"


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference model with one weight of one q_proj changed."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("changed")
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(reference_model_path() / name, folder)
    tensors = load_file(reference_model_path() / "model.safetensors")
    tensors[f"{Q_PROJ}.weight"][3, 4] += 1e-3
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def layers(difftrace: Command, tmp_path: Path) -> Path:
    """What the reference model computes at step 5, made as the documentation says."""
    path = tmp_path / "layers.json"
    assert difftrace("layers", BASELINE, "--step", 5, "-o", path)[0] == 0
    return path


def test_layers_writes_a_file_and_says_how_to_compare_with_it(difftrace: Command, tmp_path: Path) -> None:
    path = tmp_path / "new" / "layers.json"
    status, out, err = difftrace("layers", BASELINE, "--step", 5, "--output", path)
    assert (status, err) == (0, "")
    assert f"difftrace bisect {BASELINE} --against {path}" in out
    written = load_layers(path)
    assert (written.origin.step, written.origin.sequence) == (5, None)
    assert written.origin.baseline == load(BASELINE).digest
    assert violation("layers", json.loads(path.read_bytes())) is None
    told = json.loads(difftrace("layers", BASELINE, "--step", 5, "--output", path, "--json")[1])
    assert violation("layers_written", told) is None
    assert (told["output"], told["sequence"]) == (str(path), None)
    sizes = {"modules": len(written.trace.modules), "calls": len(written.trace.calls)}
    assert told["layers"] == [{"step": 5, **sizes}]


def test_the_same_model_does_not_differ_from_its_layers(difftrace: Command, layers: Path) -> None:
    status, out, err = difftrace("bisect", BASELINE, "--against", layers)
    assert (status, err) == (0, "")
    assert "no difference" in out
    assert "takes the golden decision at every step" in out


def test_a_changed_weight_is_named(difftrace: Command, layers: Path, changed: Path) -> None:
    status, out, err = difftrace("bisect", BASELINE, "--against", layers, "--model", changed)
    assert (status, err) == (1, "")
    assert f"first difference: {Q_PROJ} (Linear)" in out
    assert "its parameters differ" in out


def test_json_is_one_object_that_keeps_its_schema(difftrace: Command, layers: Path, changed: Path) -> None:
    status, out, _ = difftrace("bisect", BASELINE, "--against", layers, "--model", changed, "--json")
    found = json.loads(out)
    assert status == 1
    assert violation("bisection", found) is None
    assert (found["verdict"], found["against"]["finding"]["module"]) == ("difference", Q_PROJ)
    assert found["changed_identity"] == ["weights"]


def test_two_models_are_compared_without_a_file(difftrace: Command, changed: Path) -> None:
    trusted = reference_model_path()
    status, out, _ = difftrace("bisect", BASELINE, "--model", changed, "--against-model", trusted, "--step", 3)
    assert status == 1
    assert f"first difference: {Q_PROJ} (Linear)" in out
    assert "before step 3 of 0..15, as asked for" in out


def test_two_dtypes_of_the_model_are_compared(difftrace: Command) -> None:
    status, out, _ = difftrace("bisect", BASELINE, "--against-dtype", "bfloat16", "--json")
    found = json.loads(out)
    assert status == 1
    assert (found["same_environment"], found["step_choice"]) == (False, "none diverges")
    assert (found["origin"]["environment"]["dtype"], found["against"]["origin"]["environment"]["dtype"]) == (
        "float32", "bfloat16",
    )  # fmt: skip
    assert violation("bisection", found) is None


def test_without_anything_to_compare_with_repeatability_is_what_is_found_out(difftrace: Command) -> None:
    status, out, _ = difftrace("bisect", BASELINE)
    assert status == 0
    assert "since no step diverges" in out
    assert "repeats itself bit for bit" in out


def test_one_sequence_of_a_batch_can_be_looked_at_alone(difftrace: Command) -> None:
    batch = BASELINE.with_name("test_batch_with_padding.json")
    status, out, _ = difftrace("bisect", batch, "--step", 0, "--sequence", 1)
    assert status == 0
    assert "sequence 1 alone" in out


def test_without_the_model_that_was_recorded_it_asks_for_it(difftrace: Command, tmp_path: Path) -> None:
    baseline = load(BASELINE)
    assert baseline.model is not None
    other, unknown = tmp_path / "other.json", tmp_path / "unknown.json"
    save(other, replace(baseline, model=replace(baseline.model, name="me/big", weights="sha256:" + "0" * 64)))
    save(unknown, replace(baseline, model=None))
    for command in (("bisect",), ("layers", "--step", 1, "-o", tmp_path / "l.json")):
        status, out, err = difftrace(*command, other)
        assert (status, out) == (2, "")
        assert err == "difftrace: the baseline was recorded with me/big; give it as --model\n"
        assert difftrace(*command, unknown)[::2] == (
            2, "difftrace: the baseline does not say which model ran; give --model\n",
        )  # fmt: skip


def test_layers_of_another_model_are_refused(difftrace: Command, changed: Path, tmp_path: Path) -> None:
    status, _, err = difftrace("layers", BASELINE, "--step", 5, "--model", changed, "-o", tmp_path / "l.json")
    assert status == 2
    assert "is not the one that the baseline was recorded with: other weights" in err
    assert not (tmp_path / "l.json").exists()


def test_a_file_that_is_no_layers_file_is_refused_in_one_line(difftrace: Command) -> None:
    status, out, err = difftrace("bisect", BASELINE, "--against", BASELINE)
    assert (status, out) == (2, "")
    assert err == f'difftrace: {BASELINE}: $.format: is not "difftrace-layers", so this is no layers file\n'


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("bisect", BASELINE, "--step", 16), "there is no step 16: the baseline's are 0 to 15"),
        (("bisect", BASELINE, "--step", 0, "--sequence", 1), "there is no sequence 1"),
        (("bisect", BASELINE, "--step", -1), "-1 is not in the range"),
        (("bisect", BASELINE, "--against", BASELINE, "--against-dtype", "float32"), "choose one"),
        (("bisect", BASELINE, "--model", "/absent"), "no such folder"),
        (("bisect", BASELINE, "--dtype", "int3"), "dtype must be auto"),
        (("bisect", "absent.json"), "does not exist"),
        (("layers", BASELINE, "-o", "x.json"), "Missing option '--step'"),
        (("layers", BASELINE, "--step", 1), "give either -o FILE or --into-baseline"),
        (
            ("layers", BASELINE, "--step", 1, "-o", "x.json", "--into-baseline"),
            "give either -o FILE or --into-baseline",
        ),
        (("layers", BASELINE, "--step", 1, "--step", 2, "-o", "x.json"), "a file is of one --step"),
        (("layers", BASELINE, "--step", 16, "--into-baseline"), "there is no step 16: the baseline's are 0 to 15"),
        (
            ("layers", BASELINE, "--step", 1, "--into-baseline", "--dtype", "bfloat16"),
            "was in float32, not in bfloat16",
        ),
    ],
)
def test_what_cannot_run_exits_with_2_and_says_why(
    difftrace: Command, arguments: tuple[object, ...], says: str
) -> None:
    status, out, err = difftrace(*arguments)
    assert (status, out) == (2, "")
    assert says in err
