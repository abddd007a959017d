"""`difftrace show`: a trajectory is read without model, tokenizer or torch, on a terminal and in a pipe."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from difftrace.cli import terminal
from difftrace.core.baseline import load, save
from difftrace.core.recording import ModelIdentity
from difftrace.core.run import Run
from difftrace.core.schemas import violation
from difftrace.core.trajectory import Trajectory

Command = Callable[..., tuple[int, str, str]]

FOLDER = Path(__file__).parents[2] / "examples/quickstart/__difftrace__/test_quickstart"
BASELINE = FOLDER / "test_sum.json"
BATCH = FOLDER / "test_batch_with_padding.json"
MASK = 9


@pytest.fixture
def uneven(tmp_path: Path) -> Path:
    """A batch of a run of two steps and one of four."""
    runs = [Trajectory([1], [1, *[MASK] * n], range(n), range(1, n + 1), range(1, n + 1), n) for n in (2, 4)]
    model = ModelIdentity("m", None, None, None, None, 10, MASK)
    path = tmp_path / "uneven.json"
    save(path, Run(tuple(runs), model=model, pieces={1: "a", 2: "b", 3: "c"}).to_baseline(None))
    return path


def rows(out: str) -> list[str]:
    return [line.split()[0] for line in out.splitlines() if line and line.split()[0].isdigit()]


def test_header_and_canvas_are_shown_with_the_texts_of_tokens(difftrace: Command) -> None:
    status, out, err = difftrace("show", BASELINE)
    assert (status, err) == (0, "")
    assert out.startswith(f"{BASELINE}\n")
    golden = load(BASELINE)
    assert golden.model is not None
    assert golden.model.weights is not None
    for told in ("test_quickstart.py::test_sum", golden.model.weights[:19], "block_length=8", "torch 2.", '"42"'):
        assert told in out
    assert golden.model.weights not in out
    assert "[4]" in out
    assert "[2]" in out
    assert out.count("[") - out.count("[x]") == golden.sequences[0].trajectory.num_events
    assert "\x1b" not in out


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_lines_fit_the_width_asked_for(difftrace: Command, columns: int) -> None:
    from difftrace.reports.columns import width

    _, out, _ = difftrace("show", BATCH, "--width", columns)
    assert max(width(line) for line in out.splitlines()[1:]) <= columns


def test_the_terminals_width_is_taken_where_none_is_given(difftrace: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    narrow = difftrace("show", BASELINE)[1]
    assert narrow == difftrace("show", BASELINE, "--width", 60)[1]
    assert narrow != difftrace("show", BASELINE, "--width", 120)[1]


def test_a_step_alone_is_explained_by_its_evidence(difftrace: Command) -> None:
    status, out, _ = difftrace("show", BATCH, "--step", 3, "--sequence", 1)
    assert status == 0
    assert rows(out)[:1] == ["3"]
    assert "position 18 takes 28 '7': log-confidence -0.0621" in out
    assert "candidates; next in line: 17 5 '␣'" in out
    assert "sequence 0 of" not in out


def test_a_range_shows_its_steps_alone_and_may_be_open(difftrace: Command, uneven: Path) -> None:
    shown = {
        given: rows(difftrace("show", uneven, "--sequence", 1, "--range", given)[1])
        for given in ("1:3", ":2", "2:", "0:99")
    }
    assert shown == {"1:3": ["1", "2"], ":2": ["0", "1"], "2:": ["2", "3"], "0:99": ["0", "1", "2", "3"]}


def test_a_sequence_that_ended_before_says_so(difftrace: Command, uneven: Path) -> None:
    status, out, _ = difftrace("show", uneven, "--step", 3)
    assert status == 0
    assert "sequence 0 of 2" in out
    assert "has no step of those asked for" in out
    assert rows(out) == ["3"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--step", 16), "there is no step 16: the run has the steps 0 to 15"),
        (("--range", "16:"), "there is no step 16"),
        (("--range", "5:5"), "holds no step"),
        (("--range", "5"), "is not A:B"),
        (("--range", "-1:4"), "is not A:B"),
        (("--sequence", 1), "there is no sequence 1: the baseline has 0 to 0"),
        (("--step", 1, "--range", "1:2"), "choose one"),
        (("--textconv", "--json"), "leave --json away"),
        (("--textconv", "--step", 0), "leave --step away"),
        (("--width", 3), "Invalid value"),
    ],
)
def test_what_cannot_be_shown_is_a_usage_error(difftrace: Command, arguments: tuple[object, ...], message: str) -> None:
    status, out, err = difftrace("show", BASELINE, *arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_an_unreadable_baseline_is_one_line_and_a_2(difftrace: Command, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(BASELINE.read_bytes()[:-20])
    status, out, err = difftrace("show", path)
    assert (status, out) == (2, "")
    assert err.startswith(f"difftrace: {path}: is not complete JSON")
    assert err.count("\n") == 1


def test_json_has_the_decisions_decoded(difftrace: Command) -> None:
    found: dict[str, Any] = json.loads(difftrace("show", BATCH, "--json")[1])
    assert violation("show", found) is None
    for record, shown in zip(load(BATCH).sequences, found["sequences"], strict=True):
        trajectory = record.trajectory
        assert shown["canvas_before"] == trajectory.initial.tolist()
        assert shown["canvas_after"] == trajectory.final.tolist()
        assert [one["position"] for one in shown["commits"]] == trajectory.positions.tolist()
    part = json.loads(difftrace("show", BATCH, "--json", "--range", "3:5", "--sequence", 1)[1])
    assert violation("show", part) is None
    [shown] = part["sequences"]
    assert (shown["index"], shown["from_step"], shown["to_step"]) == (1, 3, 5)
    assert {one["step"] for one in shown["commits"]} == {3, 4}


def test_json_of_a_baseline_that_knows_nothing_else_is_valid_too(difftrace: Command, tmp_path: Path) -> None:
    path = tmp_path / "bare.json"
    save(path, Run((Trajectory([7, 8], [MASK], [], [], [], 0),)).to_baseline(None))
    assert violation("show", json.loads(difftrace("show", path, "--json")[1])) is None
    status, out, _ = difftrace("show", path)
    assert status == 0
    assert "it has no steps" in out
    assert "prompt of 2 tokens outside the canvas" in out


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_are_for_terminals_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], coloured: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", Terminal(io.BytesIO(), encoding="utf-8"))
    assert terminal.paint()("x", "new") == ("\x1b[1;32mx\x1b[0m" if coloured else "x")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert terminal.paint()("x", "new") == "x"


def test_only_what_does_not_fit_on_a_terminal_is_paged(monkeypatch: pytest.MonkeyPatch) -> None:
    paged: list[str] = []
    monkeypatch.setattr("click.echo_via_pager", lambda text, color: paged.append(text))
    monkeypatch.setenv("LINES", "5")
    monkeypatch.setattr(sys, "stdout", Terminal(io.BytesIO(), encoding="utf-8"))
    terminal.print_lines(["a"] * 4)
    assert paged == []
    terminal.print_lines(["a"] * 5)
    assert paged == ["a\na\na\na\na"]
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    terminal.print_lines(["a"] * 500)
    assert len(paged) == 1


def test_hostile_texts_reach_the_terminal_defused(difftrace: Command, tmp_path: Path) -> None:
    hostile = "\x1b[31m\n::error::\u202e"
    path = tmp_path / "hostile.json"
    run = Run(
        (Trajectory([1], [1, MASK], [0], [1], [2], 1),),
        texts=(hostile,),
        prompt_texts=(hostile,),
        pieces={1: hostile, 2: "::set-output"},
        environment={hostile: hostile, "device": hostile},
        model=ModelIdentity(hostile, hostile, None, None, None, 10, MASK),
    )
    save(path, run.to_baseline(None))
    for arguments in (("show",), ("show", "--textconv"), ("show", "--step", 0), ("replay",), ("show", "--width", 40)):
        status, out, _ = difftrace(*arguments, path)
        assert status == 0
        assert "\x1b" not in out
        assert "\u202e" not in out
        assert not any(line.lstrip().startswith("::") for line in out.splitlines())


def test_commands_that_read_import_neither_torch_nor_what_they_do_not_need(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from difftrace.cli import main\n"
        "for command in (['show', P], ['replay', P], ['diff', P, P], ['validate', P], ['upgrade', P], ['--help']):\n"
        "    sys.argv = ['difftrace', *command]\n"
        "    try:\n        main()\n"
        "    except SystemExit as end:\n        assert not end.code, command\n"
        "print(sorted({'torch', 'transformers', 'safetensors', 'pytest'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", program.replace("P]", f"{str(BASELINE)!r}]").replace("P,", f"{str(BASELINE)!r},")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]"), done.stderr


def test_a_reader_that_has_seen_enough_is_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "long.json"
    trajectory = Trajectory([], [MASK] * 400, range(400), range(400), [1] * 400, 400)
    save(path, Run((trajectory,), pieces={1: "語"}).to_baseline(None))
    program = "from difftrace.cli import main; main()"
    command = [sys.executable, "-c", program, "show", str(path), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 2
