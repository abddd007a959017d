"""Baselines with logits beside them: validated with their content, and compared by a rerun."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from difftrace.core.baseline import save
from difftrace.core.side_logits import put_beside
from difftrace.models import load_model
from difftrace.models.reference import reference_model_path
from difftrace.verification import ModelRunner

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runner = ModelRunner(load_model(str(reference_model_path()), device="cpu"))
    run = runner.generate("12 + 30 = ", gen_length=4, steps=4, record="logits")
    assert run.logits is not None
    path = tmp_path_factory.mktemp("recorded") / "golden.json"
    put_beside(path, run.logits)
    save(path, replace(run.to_baseline(None), logits=run.logits.beside(path)))
    scratch = run.logits.path
    assert scratch.exists()
    del run
    # It lasts as long as its run.
    assert not scratch.parent.exists()
    return path


@pytest.fixture
def golden(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded.parent, tmp_path / "copy")) / recorded.name


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference model with one row of one q_proj changed by so little that it decides as before."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("changed")
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(reference_model_path() / name, folder)
    tensors = load_file(reference_model_path() / "model.safetensors")
    tensors["model.transformer.blocks.2.q_proj.weight"][3] += 1e-3
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_validate_reads_the_logits_as_well(difftrace: Command, golden: Path) -> None:
    assert difftrace("validate", golden)[0] == 0
    side = golden.with_suffix(".logits")
    data = bytearray(side.read_bytes())
    data[len(data) // 2] ^= 0x10
    side.write_bytes(data)
    status, out, _ = difftrace("validate", golden)
    assert status == 1
    assert re.search(r"golden\.logits: step \d, sequence 0: ", out)
    side.unlink()
    assert difftrace("validate", golden)[0] == 0


def test_verify_gives_the_largest_difference_where_logits_first_part(
    difftrace: Command, golden: Path, changed: Path
) -> None:
    assert difftrace("verify", golden)[0] == 0
    status, out, _ = difftrace("verify", golden, "--model", changed)
    assert status == 1
    text = " ".join(out.split())
    found = re.search(r"logits at step 0: (\d+) of \d+ differ, by at most (\S+) \(position \d+, token \d+: ", text)
    assert found is not None, out
    assert int(found[1]) > 0
    assert 0 < float(found[2]) < 0.1


def test_logits_of_another_baseline_make_this_one_invalid(difftrace: Command, golden: Path) -> None:
    from difftrace.core.logits_file import open_logits
    from difftrace.core.logits_writer import save_logits

    side = golden.with_suffix(".logits")
    file = open_logits(side)
    bits = file.rows[0].bits(0)[None].repeat(len(file.rows[0]), axis=0)
    save_logits(side, file.layout, file.method, [bits])
    for command, status in (("validate", 1), ("verify", 2)):
        done, out, _ = difftrace(command, golden)
        assert done == status
        assert "holds other logits" in " ".join(out.split())
