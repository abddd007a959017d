"""`difftrace replay`: the canvas at any step, from the decisions alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from difftrace.core.baseline import load, save
from difftrace.core.run import Run
from difftrace.core.schemas import violation
from difftrace.core.trajectory import Trajectory

Command = Callable[..., tuple[int, str, str]]

FOLDER = Path(__file__).parents[2] / "examples/quickstart/__difftrace__/test_quickstart"
BASELINE = FOLDER / "test_sum.json"
BATCH = FOLDER / "test_batch_with_padding.json"


def test_the_text_forms_step_by_step(difftrace: Command) -> None:
    assert difftrace("replay", BASELINE, "--step", 0)[1] == f"12 + 30 = {'░' * 16}\n"
    assert difftrace("replay", BASELINE, "--step", 2)[1] == f"12 + 30 = 4░<|endoftext|>{'░' * 13}\n"
    status, out, err = difftrace("replay", BASELINE)
    assert (status, err) == (0, "")
    assert out.startswith("12 + 30 = 42<|endoftext|>")
    assert difftrace("replay", BASELINE, "--step", 16)[1] == out


def test_ids_are_those_of_the_whole_canvas(difftrace: Command) -> None:
    out = difftrace("replay", BATCH, "--ids", "--step", 5)[1]
    assert [list(map(int, line.split())) for line in out.splitlines()] == [
        record.trajectory.canvas(5).tolist() for record in load(BATCH).sequences
    ]
    assert difftrace("replay", BATCH, "--ids", "--step", 5, "--sequence", 1)[1] == f"{out.splitlines()[1]}\n"


def test_a_text_is_one_line_without_padding_whatever_its_tokens_are(difftrace: Command, tmp_path: Path) -> None:
    path = tmp_path / "lines.json"
    trajectory = Trajectory([1], [8, 1, 9, 9], [0, 1], [2, 3], [2, 3], 2, padding=1)
    save(path, Run((trajectory,), pieces={8: "<pad>", 1: "a\n", 2: "語"}).to_baseline(None))
    assert difftrace("replay", path)[1] == "a\\n語⟨3⟩\n"
    assert difftrace("replay", path, "--step", 1)[1] == "a\\n語░\n"
    [sequence] = json.loads(difftrace("replay", path, "--json")[1])["sequences"]
    assert sequence["text"] == "a\n語⟨3⟩"


def test_json_has_ids_and_text(difftrace: Command) -> None:
    found: dict[str, Any] = json.loads(difftrace("replay", BATCH, "--step", 3, "--json")[1])
    assert violation("replay", found) is None
    assert [one["step"] for one in found["sequences"]] == [3, 3]
    for one, record in zip(found["sequences"], load(BATCH).sequences, strict=True):
        assert one["tokens"] == record.trajectory.canvas(3).tolist()
    assert [one["text"] for one in found["sequences"]] == difftrace("replay", BATCH, "--step", 3)[1].splitlines()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--step", 17), "sequence 0 has 16 steps, so the last canvas is that of --step 16"),
        (("--sequence", 1), "there is no sequence 1"),
        (("--step", -1), "Invalid value"),
    ],
)
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_what_is_not_there_cannot_be_replayed(
    difftrace: Command, arguments: tuple[object, ...], message: str, form: tuple[str, ...]
) -> None:
    status, out, err = difftrace("replay", BASELINE, *arguments, *form)
    assert (status, out) == (2, "")
    assert message in err
