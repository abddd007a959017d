"""`difftrace layers --into-baseline`, and what `difftrace bisect` and `difftrace validate` make of its probes."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from difftrace.core.baseline import load, save
from difftrace.core.schemas import violation
from difftrace.models import LoadedModel, load_model
from difftrace.models.reference import reference_model_path

Outcome = tuple[int, str, str]
Command = Callable[..., Outcome]

FOLDER = Path(__file__).parents[2] / "examples/quickstart/__difftrace__/test_quickstart"
SOURCE = FOLDER / "test_sum.json"
TRANSFORMER = "model.transformer"
STEP = 5

PARTS = {
    "embedding": f"{TRANSFORMER}.wte",
    "q_proj": f"{TRANSFORMER}.blocks.2.q_proj",
    "norm": f"{TRANSFORMER}.blocks.3.attn_norm",
    "ff_proj": f"{TRANSFORMER}.blocks.4.ff_proj",
    "head": f"{TRANSFORMER}.ff_out",
}


@pytest.fixture(scope="module")
def probed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline with a probe of one step, made as the documentation says."""
    from difftrace.cli import main

    path = tmp_path_factory.mktemp("probed") / "sum.json"
    shutil.copy(SOURCE, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["difftrace", "layers", str(path), "--step", str(STEP), "--into-baseline"])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return path


@pytest.fixture
def probed(probed_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(probed_once, tmp_path / "sum.json"))


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copy(SOURCE, tmp_path / "sum.json"))


@pytest.fixture(scope="module")
def live() -> LoadedModel:
    return load_model(reference_model_path(), device="cpu")


@pytest.fixture
def loads_live(live: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    """What the commands load, so that a test can hook into it."""
    for command in ("bisect", "layers"):
        monkeypatch.setattr(f"difftrace.cli.{command}.load_for", lambda *_: live)
    return live


def louder(_module: nn.Module, _args: object, out: Tensor) -> Tensor:
    return out * (1 + 1e-6)


@pytest.mark.parametrize("part", PARTS)
def test_bisect_names_the_part_that_computes_something_else(
    difftrace: Command, probed: Path, loads_live: LoadedModel, part: str
) -> None:
    with loads_live.model.get_submodule(PARTS[part]).register_forward_hook(louder):
        status, out, err = difftrace("bisect", probed)
    assert (status, err) == (1, "")
    assert f"first difference: {PARTS[part]} (" in out
    assert "golden  probe in the baseline: reference, float32 on cpu, the same environment" in out
    assert "it was given the same and returned something else; its parameters agree" in out


def test_at_a_step_without_a_probe_the_nearest_one_is_used_and_said(
    difftrace: Command, probed: Path, loads_live: LoadedModel
) -> None:
    with loads_live.model.get_submodule(PARTS["norm"]).register_forward_hook(louder):
        status, out, _ = difftrace("bisect", probed, "--step", 9, "--json")
        lines = difftrace("bisect", probed, "--step", 9)[1]
    found = json.loads(out)
    assert status == 1
    assert violation("bisection", found) is None
    assert (found["asked_step"], found["origin"]["step"], found["step_choice"]) == (9, STEP, "given")
    assert (found["against"]["source"], found["against"]["file"]) == ("probe", None)
    assert found["against"]["finding"]["module"] == PARTS["norm"]
    assert f"before step {STEP} of 0..15, the probe nearest to step 9, as asked for" in lines


def test_the_first_divergent_step_is_what_the_nearest_probe_is_of(
    difftrace: Command, probed: Path, loads_live: LoadedModel
) -> None:
    assert difftrace("layers", probed, "--step", 12, "--into-baseline")[0] == 0

    def spoil(_module: nn.Module, _args: object, out: Tensor) -> Tensor:
        return out + 30.0 * torch.sin(torch.arange(out.numel()).view(out.shape) ** 2.0)

    with loads_live.model.get_submodule(PARTS["head"]).register_forward_hook(spoil):
        status, out, _ = difftrace("bisect", probed, "--json")
    found = json.loads(out)
    assert status == 1
    assert (found["step_choice"], found["decisions"]) == ("first divergent", "diverge")
    assert found["asked_step"] == found["divergence"]["step"] < 8
    assert found["origin"]["step"] == STEP
    assert found["against"]["finding"]["module"] == PARTS["head"]


def test_in_another_dtype_the_error_is_what_is_looked_at(difftrace: Command, probed: Path) -> None:
    status, out, _ = difftrace("bisect", probed, "--dtype", "bfloat16")
    assert status == 1
    assert "another environment" in out
    assert "no module stands out: the error grows nowhere more than" in out


def test_in_another_dtype_the_part_in_which_the_error_grows_most_is_named(
    difftrace: Command, probed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attention, calls = functional.scaled_dot_product_attention, itertools.count()

    def third_sharper(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Tensor:
        return attention(q * 1.2 if next(calls) % 6 == 2 else q, k, v, **more)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", third_sharper)
    status, out, _ = difftrace("bisect", probed, "--step", STEP, "--dtype", "bfloat16")
    assert status == 1
    assert f"the error grows most in {TRANSFORMER}.blocks.2 (" in out


def test_a_file_wins_over_a_probe_and_so_does_a_model(
    difftrace: Command, probed: Path, tmp_path: Path, loads_live: LoadedModel
) -> None:
    assert difftrace("layers", probed, "--step", 2, "-o", tmp_path / "l.json")[0] == 0
    found = json.loads(difftrace("bisect", probed, "--against", tmp_path / "l.json", "--json")[1])
    assert (found["against"]["source"], found["origin"]["step"]) == ("file", 2)
    found = json.loads(difftrace("bisect", probed, "--against-device", "cpu", "--step", 2, "--json")[1])
    assert (found["against"]["source"], found["origin"]["step"]) == ("model", 2)


def test_the_same_model_does_not_differ(difftrace: Command, probed: Path) -> None:
    status, out, err = difftrace("bisect", probed)
    assert (status, err) == (0, "")
    assert f"before step {STEP} of 0..15, the first with a probe, since no step diverges" in out
    assert "no difference" in out


def test_several_steps_are_put_in_at_once_and_nothing_else_changes(difftrace: Command, copied: Path) -> None:
    before = load(copied)
    status, out, err = difftrace("layers", copied, "--step", 12, "--step", 0, "--into-baseline")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == f"compare with it: difftrace bisect {copied}"
    after = load(copied)
    assert [(probe.step, probe.sequence) for probe in after.probes] == [(0, None), (12, None)]
    assert replace(after, probes=()) == before
    once = copied.read_bytes()
    assert len(once) < 120_000
    assert difftrace("layers", copied, "--step", 12, "--into-baseline")[0] == 0
    assert copied.read_bytes() == once
    assert difftrace("validate", copied)[0] == 0


def test_one_sequence_of_a_batch_can_be_probed_alone(difftrace: Command, tmp_path: Path) -> None:
    path = shutil.copy(FOLDER / "test_batch_with_padding.json", tmp_path / "batch.json")
    assert difftrace("layers", path, "--step", 3, "--sequence", 1, "--into-baseline")[0] == 0
    status, out, _ = difftrace("bisect", path, "--step", 4)
    assert status == 0
    assert "before step 3 of 0..15, sequence 1 alone, the probe nearest to step 4, as asked for" in " ".join(
        out.split()
    )
    other = difftrace("bisect", path, "--step", 4, "--sequence", 0)[1]
    assert "there is no golden side" in other
    assert f"difftrace layers {path} --step 4 --sequence 0 --into-baseline" in other


def test_a_model_that_decides_otherwise_puts_nothing_in(
    difftrace: Command, copied: Path, loads_live: LoadedModel
) -> None:
    before = copied.read_bytes()

    def reverse(_module: nn.Module, _args: object, out: Tensor) -> Tensor:
        return out.flip(-1)

    with loads_live.model.get_submodule(PARTS["head"]).register_forward_hook(reverse):
        status, out, err = difftrace("layers", copied, "--step", 3, "--step", 4, "--into-baseline")
    assert (status, out) == (2, "")
    assert "difftrace: at step 3, position" in err
    assert "decides otherwise here than the golden run did" in err
    assert copied.read_bytes() == before


def test_a_baseline_that_cannot_be_run_again_takes_no_probes(difftrace: Command, copied: Path) -> None:
    save(copied, replace(load(copied), sampler=None))
    status, _, err = difftrace("layers", copied, "--step", 3, "--into-baseline")
    assert status == 2
    assert "does not say which sampler ran" in err


def test_a_stale_probe_is_refused_by_name(difftrace: Command, probed: Path, loads_live: LoadedModel) -> None:
    baseline = load(probed)
    stale = replace(load(FOLDER / "test_reverse[lamp].json"), probes=baseline.probes)
    save(probed, stale)
    says = f"{probed}: $.probes[0]: is of another run than the baseline's; make it anew with `difftrace layers"
    status, _, err = difftrace("bisect", probed)
    assert status == 2
    assert err.startswith(f"difftrace: {says}")
    status, out, _ = difftrace("validate", probed)
    assert status == 1
    assert out.startswith(says)


def test_a_probe_that_was_changed_is_invalid(difftrace: Command, probed: Path) -> None:
    document = json.loads(probed.read_bytes())
    document["probes"][0]["digest"] = "sha256:" + "0" * 64
    probed.write_text(json.dumps(document))
    status, out, _ = difftrace("validate", probed, "--json")
    assert status == 1
    (problem,) = json.loads(out)["problems"][str(probed)]
    assert "$.probes[0].payload: the payload does not match the digest" in problem
