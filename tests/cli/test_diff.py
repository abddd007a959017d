"""`difftrace diff`: two recordings are told apart as a verification would, and their files say what a script needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from difftrace.core.baseline import load, save
from difftrace.core.schemas import violation
from difftrace.reports.columns import width

Command = Callable[..., tuple[int, str, str]]

FOLDER = Path(__file__).parents[2] / "examples/quickstart/__difftrace__/test_quickstart"
BASELINE = FOLDER / "test_sum.json"
BATCH = FOLDER / "test_batch_with_padding.json"


@pytest.fixture
def received(tmp_path: Path) -> Path:
    """The batch, run elsewhere, whose second sequence commits another token at step 3."""
    golden = load(BATCH)
    record = golden.sequences[1]
    tokens = record.trajectory.tokens.copy()
    tokens[3] = 9
    other = replace(record, trajectory=replace(record.trajectory, tokens=tokens), evidence=None, text="2 4 8 9")
    path = tmp_path / "received.json"
    environment = {**golden.environment, "torch": "2.6.0"}
    save(path, replace(golden, sequences=(golden.sequences[0], other), environment=environment))
    return path


def document(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out)
    assert violation("diff", found) is None
    return found


def test_a_recording_is_the_same_as_itself(difftrace: Command) -> None:
    status, out, err = difftrace("diff", BATCH, BATCH)
    assert (status, err) == (0, "")
    assert "IDENTICAL" in out
    assert out.endswith("environments: identical\n")
    found = document(difftrace("diff", BATCH, BATCH, "--json")[1])
    assert (found["same"], found["class"], found["divergence"], found["sequences"]) == (
        True,
        "IDENTICAL",
        None,
        [None, None],
    )


def test_where_it_ran_does_not_make_a_run_another(difftrace: Command, tmp_path: Path) -> None:
    golden, path = load(BASELINE), tmp_path / "elsewhere.json"
    save(path, replace(golden, environment={**golden.environment, "torch": "2.6.0", "canary": f"sha256:{'0' * 64}"}))
    status, out, _ = difftrace("diff", BASELINE, path)
    assert status == 0
    assert "environment.torch" in out
    assert "environments: not comparable: canary" in out
    found = document(difftrace("diff", BASELINE, path, "--json")[1])
    assert found["environments"]["deciding"] == ["canary"]
    assert found["environments"]["differing"] == ["torch", "canary"]


def test_runs_that_differ_are_shown_around_their_first_decision(difftrace: Command, received: Path) -> None:
    status, out, err = difftrace("diff", BATCH, received)
    assert (status, err) == (1, "")
    assert "at step 3, position 18 of sequence 1" in out
    assert "the canvas before step 3, and what each commits at it:" in out
    assert "outcome: 1 final token and 1 commit differ" in out
    assert "environment.torch" in out
    assert "environments: bit-comparable" in out
    assert "1 of 2 sequences decide otherwise:\n  1  first at step 3, position 18\n" in out
    paths = (str(BATCH), str(received))
    assert all(width(line) <= 100 for line in out.splitlines() if not line.endswith(paths))
    found = document(difftrace("diff", BATCH, received, "--json")[1])
    assert (found["golden"], found["observed"]) == paths
    assert not found["same"]
    assert found["sequences"][0] is None
    assert found["sequences"][1] == found["divergence"]
    assert (found["divergence"]["golden"], found["divergence"]["observed"]) == (28, 9)
    assert {"field": "environment.torch", "golden": load(BATCH).environment["torch"], "observed": "2.6.0"} in found[
        "suspects"
    ]


def test_one_sequence_can_be_compared_alone(difftrace: Command, received: Path) -> None:
    assert difftrace("diff", BATCH, received, "--sequence", 0)[0] == 0
    status, out, _ = difftrace("diff", BATCH, received, "--sequence", 1)
    assert status == 1
    assert "sequence 1 alone" in out
    assert document(difftrace("diff", BATCH, received, "--sequence", 1, "--json")[1])["only_sequence"] == 1
    status, _, err = difftrace("diff", BATCH, received, "--sequence", 2)
    assert status == 2
    assert "there is no sequence 2" in err


def test_batches_of_other_sizes_and_other_prompts_are_compared(difftrace: Command) -> None:
    status, out, _ = difftrace("diff", BASELINE, BATCH)
    assert status == 1
    assert "INPUT" in out
    assert document(difftrace("diff", BASELINE, BATCH, "--json")[1])["divergence"]["kind"] == "sequences"
    status, out, _ = difftrace("diff", FOLDER / "test_reverse[lamp].json", FOLDER / "test_reverse[stone].json")
    assert status == 1
    assert "the runs differ in the prompt at position 8" in out


def test_what_cannot_be_read_is_not_called_different(difftrace: Command, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text("{}")
    for arguments in ((BASELINE, path), (path, BASELINE), (BASELINE, tmp_path / "absent.json"), (BASELINE,)):
        status, out, err = difftrace("diff", *arguments)
        assert (status, out) == (2, "")
        assert err
