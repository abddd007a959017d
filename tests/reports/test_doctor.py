"""What `difftrace doctor` prints: everything measured, nothing claimed that was not."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from difftrace.core.doctor import Demand, ProbeResult, Surroundings
from difftrace.reports.columns import width
from difftrace.reports.doctor import closing, opening, probe_lines

HOSTILE = "\x1b[31mred\n::error::\u202e"


@dataclass(frozen=True)
class Switch:
    name: str
    requested: str | int | bool | None
    effective: str | int | bool | None
    in_force: bool | None
    checked: str
    required: bool = True


@dataclass(frozen=True)
class Status:
    profile: str
    active: bool
    switches: tuple[Switch, ...]


SWITCHES = (
    Switch("deterministic_algorithms", "error", "error", True, "torch.get_deterministic_debug_mode()"),
    Switch("CUBLAS_WORKSPACE_CONFIG", ":4096:8", None, False, "environment"),
    Switch("PYTHONHASHSEED", "0", "random", False, "sys.flags.hash_randomization", required=False),
    Switch("MKL_CBWR", "COMPATIBLE", "COMPATIBLE", None, "environment; whether it was set in time, nothing tells"),
)


def surroundings(status: Status, model: str = "some", torch: str = "2.6.0") -> Surroundings:
    settings = {"prompts": 4, "prompt_tokens": 10, "gen_length": 32, "steps": 16, "threads": 1, "attention": "math"}
    return Surroundings(model, None, "float32", "cpu", settings, status, {"torch": torch, "cuda": None, "list": [1, 2]})


def cells(lines: list[str], start: str) -> list[str]:
    """Return the words of the line that starts so."""
    return next(line.split() for line in lines if line.strip().startswith(start))


def test_the_switches_come_first_with_what_was_asked_found_and_how_it_is_known() -> None:
    lines = opening(surroundings(Status("cpu", True, SWITCHES)))
    assert cells(lines, "deterministic_algorithms")[1:] == [
        "error",
        "error",
        "yes",
        "torch.get_deterministic_debug_mode()",
    ]
    assert "    environment; whether it was set in time, nothing tells" in lines
    assert cells(lines, "CUBLAS")[1:] == [":4096:8", "none", "NO", "environment"]
    assert cells(lines, "PYTHONHASHSEED")[1:4] == ["0", "random", "no"]
    assert "determinism: profile cpu, enforced while the probes run" in lines
    assert lines.index("fingerprint") > lines.index("determinism: profile cpu, enforced while the probes run")
    assert cells(lines, "list") == ["list", "1,", "2"]


def test_what_nothing_tells_is_not_shown_as_in_force() -> None:
    lines = opening(surroundings(Status("cpu", False, SWITCHES)))
    assert cells(lines, "MKL_CBWR")[3] == "unknown"
    assert "determinism: profile cpu, not enforced" in lines


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (ProbeResult("repeat", "in process", "bit-equal", difference=0.0), ["bit-equal", "0"]),
        (ProbeResult("repeat", "in process", "same decisions", difference=9.54e-7), ["decisions", "9.54e-07"]),
        (
            ProbeResult("repeat", "in process", "differs", step=15, position=59, prompt=3, difference=0.125),
            ["differs", "0.125", "step", "15", "position", "59,", "prompt", "3"],
        ),
    ],
)
def test_a_verdict_stands_beside_what_was_measured(result: ProbeResult, words: list[str]) -> None:
    (line,) = probe_lines(result)
    assert line.split()[-len(words) :] == words


def test_what_was_not_run_says_so_and_why_and_nothing_else() -> None:
    first, *reason = probe_lines(ProbeResult("attention", "cudnn instead of math", "not run", reason="no such kernel"))
    assert first.split() == ["attention", "cudnn", "instead", "of", "math", "not", "run"]
    assert [line.strip() for line in reason] == ["no such kernel"]


def test_numbers_that_were_not_finite_are_counted() -> None:
    lines = probe_lines(ProbeResult("repeat", "in process", "bit-equal", difference=None, non_finite=7))
    assert "7 pairs of logits" in lines[1]
    assert "NaN or infinite" in lines[1]


def test_a_demand_says_whether_it_is_met_and_by_what_not() -> None:
    results = [
        ProbeResult("repeat", "in process", "bit-equal", difference=0.0),
        ProbeResult("repeat", "fresh process", "not run", reason="it died"),
        ProbeResult("batch", "2 rows instead of 1", "same decisions", difference=0.1),
        ProbeResult("dtype", "float32 instead of bfloat16", "bit-equal", non_finite=2),
    ]
    demands = [Demand("repeat"), Demand("batch", "same decisions"), Demand("threads"), Demand("dtype")]
    assert closing(demands, results) == [
        "repeat: asked for bit-equal runs: NOT MET (fresh process: not run)",
        "batch: asked for the same decisions: met",
        "threads: asked for bit-equal runs: NOT MET, nothing was run",
        "dtype: asked for bit-equal runs: NOT MET (float32 instead of bfloat16: logits not finite)",
    ]


def test_lines_fit_and_hostile_text_is_defused() -> None:
    long = HOSTILE * 40
    status = Status(long, True, (*SWITCHES, Switch(long, long, long, None, long)))
    many = [ProbeResult("repeat", HOSTILE * 9, "not run", reason=long)] * 3
    lines = [*opening(surroundings(status, long, long)), *probe_lines(many[0]), *closing([Demand("repeat")], many)]
    assert [line for line in lines if width(line) > 100] == []
    assert all(line.isprintable() for line in lines)
    assert not any(line.lstrip().startswith("::") for line in lines)
