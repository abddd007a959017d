"""The canvas over steps: nothing is left out unsaid, nothing is wider than asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from difftrace.core.recording import Baseline, ModelIdentity
from difftrace.core.run import Run
from difftrace.core.trajectory import Trajectory
from difftrace.reports.columns import width
from difftrace.reports.steps import Span, canvas_lines
from difftrace.reports.styles import coloured

MASK = 999


def recorded(trajectory: Trajectory, pieces: Mapping[int, str]) -> Baseline:
    model = ModelIdentity("m", None, None, None, None, 1000, MASK)
    return Run((trajectory,), model=model, pieces=pieces).to_baseline(None)


def shown(
    trajectory: Trajectory, pieces: Mapping[int, str] | None = None, columns: int = 100, **more: Any
) -> list[str]:
    span = more.pop("span", Span(0, trajectory.num_steps))
    return list(canvas_lines(recorded(trajectory, pieces or {}), 0, span, columns, **more))


def test_every_step_marks_what_it_commits() -> None:
    trajectory = Trajectory([1], [1, MASK, MASK, MASK], [0, 0, 2], [1, 3, 2], [4, 5, 6], 3)
    assert shown(trajectory, {1: "a", 4: "b", 5: "cc", 6: " d"}) == [
        "position 0  1  2   3",
        "before   a  ░  ░   ░",
        "0        a [b] ░  [cc]",
        "⋮        1 commits nothing here",
        "2        a  b [␣d] cc",
        "",
    ]


def test_committing_a_position_again_is_marked_as_that() -> None:
    trajectory = Trajectory([], [7, 8], [0, 1, 2], [0, 0, 0], [5, 5, MASK], 4)
    assert shown(trajectory)[1:6] == [
        "before   7  8",
        "0       [5] 8",
        "1       {5} 8",
        "2       {░} 8",
        "⋮        3 commits nothing here",
    ]
    # Also where the first commit lies before what is shown.
    assert "1       {5} 8" in shown(trajectory, span=Span(1, 2))


def test_a_span_starts_from_the_canvas_before_it() -> None:
    trajectory = Trajectory([], [MASK] * 3, [0, 1, 2], [0, 1, 2], [1, 2, 3], 3)
    assert shown(trajectory, span=Span(1, 2)) == [
        "position 0  1  2",
        "before   1  ░  ░",
        "1        1 [2] ░",
        "",
    ]


def test_left_padding_is_not_text() -> None:
    trajectory = Trajectory([1], [50, 50, 1, MASK], [0], [3], [2], 1, padding=2)
    assert shown(trajectory, {50: "<pad>", 1: "a", 2: "b"})[1:3] == ["before   ·  ·  a  ░", "0        ·  ·  a [b]"]


@pytest.mark.parametrize("columns", [40, 79, 200])
def test_a_run_of_512_positions_and_steps_shows_every_commit_once_in_lines_that_fit(columns: int) -> None:
    rng = np.random.default_rng(0)
    words = ["the", "語言", "é", " however", "e\u0301", "\u0301", "👍", "a" * 30, "\x1b"]
    pieces = {token: words[token % len(words)] for token in range(900)}
    trajectory = Trajectory(
        [], [MASK] * 512, rng.permutation(512), np.arange(512), rng.integers(0, 900, 512), num_steps=512
    )
    lines = shown(trajectory, pieces, columns)
    assert max(map(width, lines)) <= columns
    assert sum(line.count("[") for line in lines) == 512
    assert not any("\x1b" in line for line in lines)
    positions = [int(number) for line in lines if line.startswith("position ") for number in re.findall(r"\d+", line)]
    assert positions == list(range(512))


def test_columns_stay_below_their_positions_whatever_stands_in_them() -> None:
    pieces = {1: "語", 2: "e\u0301", 3: "\u0301", 4: "x"}
    trajectory = Trajectory([], [MASK] * 4, [0, 1, 2, 3], [0, 1, 2, 3], [1, 2, 3, 4], 4)
    position, *_, last, _ = shown(trajectory, pieces)
    # A mark that combines stands on a circle instead of on a bracket.
    assert last == "3        語  e\u0301  ◌\u0301 [x]"
    assert width(last[: last.index("x")]) == width(position[: position.index("3")])


def test_positions_that_no_step_changes_take_one_line() -> None:
    prompt = list(range(1, 101))
    trajectory = Trajectory(prompt, [*prompt, MASK, MASK, *prompt], [0], [100], [5], 1)
    first, _, *window, _, last, _ = shown(trajectory, columns=60)
    assert first.startswith("positions 0-")
    assert ", no commit here: 1 2 3 4" in first
    assert last.startswith("positions ")
    assert "-201, no commit here: " in last
    assert len(window) == 3
    assert "[5]" in window[2]
    ends = [int(number) for line in (first, last) for number in re.findall(r"positions (\d+)-(\d+)", line)[0]]
    inside = [int(number) for number in re.findall(r"\d+", window[0])]
    assert [*range(ends[0], ends[1] + 1), *inside, *range(ends[2], ends[3] + 1)] == list(range(202))


def test_a_run_that_commits_nothing_is_one_line() -> None:
    assert shown(Trajectory([], [1, 2], [], [], [], 3)) == ["positions 0-1, no commit here: 1 2", ""]


def test_colours_change_nothing_else() -> None:
    trajectory = Trajectory([1], [1, MASK, MASK, MASK], [0, 0, 2], [1, 3, 2], [4, 5, 6], 3)
    plain, bright = shown(trajectory), shown(trajectory, paint=coloured)
    assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in bright] == plain
    assert "\x1b[1;32m[4]\x1b[0m" in bright[2]
    assert "\x1b[2m░\x1b[0m" in bright[1]
