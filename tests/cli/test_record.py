"""`difftrace record`: prompts become baselines that verify, and nothing is overwritten that was not to be."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from difftrace.cli import sampler_options
from difftrace.core.baseline import load, save
from difftrace.core.prompts import OPTIONS
from difftrace.core.recording import Budget
from difftrace.core.schemas import violation
from difftrace.core.test_id import TestId
from difftrace.reports.columns import width
from difftrace.sampling import arguments as sampler
from difftrace.verification.record import record as record_one

Command = Callable[..., tuple[int, str, str]]

GOLDEN = Path(__file__).parents[2] / "examples/quickstart/__difftrace__/test_quickstart/test_sum.json"
SUM = "12 + 30 = "
SHORT = ("--gen-length", 8, "--steps", 4)


def document(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out)
    assert violation("recording", found) is None
    return found


def statuses(out: str) -> list[str]:
    return [one["status"] for one in document(out)["baselines"]]


def write_lines(path: Path, *lines: object) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def recorded(difftrace: Command, tmp_path: Path) -> Path:
    """A baseline that was recorded with a seed and a step for each token."""
    path = tmp_path / "golden.json"
    assert difftrace("record", "--prompt", SUM, *SHORT, "-o", path)[0] == 0
    return path


def test_what_is_recorded_verifies_and_is_what_a_test_would_have_recorded(difftrace: Command, tmp_path: Path) -> None:
    folder = tmp_path / "goldens"
    told = difftrace("record", "--prompt", SUM, "--gen-length", 16, "--block-length", 8, "--out", folder)
    [path] = folder.iterdir()
    assert told == (0, f"new               {path}\n  42\n1 baseline: 1 new\n", "")
    found, golden = load(path), load(GOLDEN)
    assert found.test is None
    assert (found.digest, found.sampler, found.model) == (golden.digest, golden.sampler, golden.model)
    assert found.sequences[0].evidence is not None
    status, out, _ = difftrace("verify", folder)
    assert (status, out.splitlines()[-1]) == (0, "1 baseline: 1 passed")
    assert difftrace("validate", folder)[:2] == (0, "1 checked, 0 invalid\n")


def test_prompts_of_a_file_have_names_and_arguments_of_their_own(difftrace: Command, tmp_path: Path) -> None:
    lines = [
        {"prompt": SUM, "id": "sum", "gen_length": 8, "steps": 8, "block_length": 4, "seed": 3},
        {"prompt": "reverse lamp: ", "id": 7, "temperature": 0.5, "logits_eos_inf": True},
        {"prompt": [5, 6, 7], "id": "tokens", "remasking": "random"},
    ]
    prompts = write_lines(tmp_path / "prompts.jsonl", lines[0], "", *lines[1:])
    folder = tmp_path / "out"
    status, out, err = difftrace("record", "--prompts", prompts, *SHORT, "--seed", 1, "--out", folder, "--json")
    assert (status, err) == (0, "")
    found = document(out)
    assert [one["prompts"] for one in found["baselines"]] == [["sum"], ["7"], ["tokens"]]
    assert (found["total"], found["written"], found["complete"], found["scope"]) == (3, 3, True, "missing")
    assert set(contents(folder)) == {"sum.json", "7.json", "tokens.json"}
    ran = {name: load(folder / f"{name}.json") for name in ("sum", "7", "tokens")}
    assert ran["sum"].test == TestId("prompts.jsonl", "sum", None)
    given = {name: one.sampler.arguments for name, one in ran.items() if one.sampler is not None}
    names = ("gen_length", "steps", "block_length", "seed")
    assert [given["sum"][name] for name in names] == [8, 8, 4, 3]
    assert [given["7"][name] for name in names] == [8, 4, 8, 1]
    assert (given["7"]["temperature"], given["7"]["logits_eos_inf"], given["tokens"]["remasking"]) == (
        0.5, True, "random",
    )  # fmt: skip
    assert ran["tokens"].sequences[0].trajectory.prompt.tolist() == [5, 6, 7]
    assert difftrace("verify", folder)[0] == 0


def test_recording_again_leaves_every_byte(difftrace: Command, recorded: Path) -> None:
    before = recorded.read_bytes()
    for scope in ("missing", "changed", "all"):
        status, out, _ = difftrace("record", "--prompt", SUM, *SHORT, "-o", recorded, "--scope", scope)
        assert (status, out) == (0, f"unchanged         {recorded}\n1 baseline: 1 unchanged\n")
        assert recorded.read_bytes() == before


def test_another_run_takes_the_place_of_a_baseline_only_where_that_was_asked_for(
    difftrace: Command, recorded: Path
) -> None:
    before = recorded.read_bytes()
    again = ("record", "--prompt", "12 + 31 = ", *SHORT, "-o", recorded)
    status, out, err = difftrace(*again)
    assert (status, err, recorded.read_bytes()) == (1, "", before)
    assert out.startswith(f"DIFFERS           {recorded}\n")
    assert "INPUT: run differs from its baseline" in out
    assert "record it with --scope changed" in out
    assert out.endswith("1 baseline: 1 differs\n")
    assert all(width(line) <= 100 or str(recorded) in line for line in out.splitlines())
    [one] = document(difftrace(*again, "--json")[1])["baselines"]
    assert (one["status"], one["class"]) == ("differs", "INPUT")
    assert statuses(difftrace(*again, "--scope", "changed", "--json")[1]) == ["changed"]
    assert load(recorded).sequences[0].prompt_text == "12 + 31 = "


def test_only_all_refreshes_what_holds(difftrace: Command, recorded: Path) -> None:
    now = recorded.read_bytes()
    budget = Budget(0.5, 0.25, 0.125, {"basis": "two hosts"})
    older = replace(load(recorded), environment={**load(recorded).environment, "torch": "1.0"}, budget=budget)
    save(recorded, older)
    before = recorded.read_bytes()
    command = ("record", "--prompt", SUM, *SHORT, "-o", recorded, "--json", "--scope")
    assert statuses(difftrace(*command, "changed")[1]) == ["unchanged"]
    assert recorded.read_bytes() == before
    assert statuses(difftrace(*command, "all")[1]) == ["changed"]
    # What was measured of the same model stays.
    assert load(recorded) == replace(older, environment=load(recorded).environment)
    assert load(recorded).environment["torch"] != "1.0"
    save(recorded, replace(load(recorded), budget=None))
    assert recorded.read_bytes() == now


@pytest.fixture
def noisy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that draws random numbers."""
    silu = functional.silu
    monkeypatch.setattr(
        functional, "silu", lambda x, *more, **named: silu(x, *more, **named) + 3 * torch.randn(x.shape)
    )


@pytest.mark.usefixtures("noisy")
def test_what_does_not_repeat_itself_is_not_written(difftrace: Command, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    command = ("record", "--prompt", SUM, *SHORT, "--out", folder)
    status, out, _ = difftrace(*command)
    assert (status, folder.exists()) == (1, False)
    assert out.startswith("NOT REPRODUCIBLE  ")
    assert "not recorded: two runs differ" in out
    assert "run 1" in out
    assert out.endswith("1 baseline: 1 not reproducible\n")
    assert statuses(difftrace(*command, "--json", "--scope", "all")[1]) == ["not reproducible"]


@pytest.mark.usefixtures("noisy")
def test_noise_does_not_replace_a_baseline_either(difftrace: Command, tmp_path: Path) -> None:
    path = tmp_path / "golden.json"
    path.write_bytes(GOLDEN.read_bytes())
    save(path, replace(load(path), test=None))
    before = path.read_bytes()
    command = ("record", "--prompt", SUM, "--gen-length", 16, "--block-length", 8, "-o", path, "--json", "--scope")
    for scope in ("missing", "changed", "all"):
        status, out, _ = difftrace(*command, scope)
        assert (status, statuses(out), path.read_bytes()) == (1, ["not reproducible"], before)


def test_a_file_of_a_test_or_a_newer_version_is_never_overwritten(difftrace: Command, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "a.json").write_bytes(GOLDEN.read_bytes())
    (folder / "b.json").write_bytes(GOLDEN.read_bytes().replace(b'"version": "', b'"version": "9', 1))
    before = contents(folder)
    prompts = write_lines(tmp_path / "p.jsonl", {"prompt": SUM, "id": "a"}, {"prompt": SUM, "id": "b"})
    status, out, _ = difftrace("record", "--prompts", prompts, *SHORT, "--out", folder, "--scope", "all", "--json")
    assert (status, statuses(out)) == (1, ["refused", "refused"])
    assert contents(folder) == before
    problems = [one["problem"] for one in document(out)["baselines"]]
    assert "is the baseline of test_quickstart.py::test_sum" in problems[0]
    assert "newer pytest-difftrace" in problems[1]


def test_what_cannot_be_read_is_replaced_only_where_that_was_asked_for(difftrace: Command, recorded: Path) -> None:
    whole = recorded.read_bytes()
    recorded.write_bytes(whole[:-20])
    command = ("record", "--prompt", SUM, *SHORT, "-o", recorded)
    status, out, _ = difftrace(*command)
    assert (status, recorded.read_bytes()) == (1, whole[:-20])
    assert out.startswith(f"REFUSED           {recorded}\n  is not complete JSON")
    assert difftrace(*command, "--scope", "changed")[0] == 0
    assert recorded.read_bytes() == whole


def test_every_wrong_line_is_named_and_nothing_is_run(
    difftrace: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("difftrace.models.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    prompts = write_lines(tmp_path / "p.jsonl", {"prompt": SUM}, "{", {"prompt": ""}, {"prompt": SUM, "stpes": 3})
    status, out, err = difftrace("record", "--prompts", prompts, "--out", tmp_path / "out")
    assert (status, out, (tmp_path / "out").exists()) == (2, "", False)
    told = err.splitlines()
    assert [line.partition(":")[2].partition(":")[0] for line in told[:-1]] == [
        f" p.jsonl line {number}" for number in (2, 3, 4)
    ]
    assert "'stpes'" in told[2]
    assert told[-1] == "difftrace: nothing was run or written"


def test_lines_that_the_sampler_or_the_model_cannot_run_are_named_before_any_is_run(
    difftrace: Command, tmp_path: Path
) -> None:
    lines = [
        {"prompt": SUM},
        {"prompt": SUM, "gen_length": 7, "steps": 7, "block_length": 2},
        {"prompt": [99999]},
        {"prompt": SUM, "seed": None},
        {"prompt": SUM, "noise": "upstream", "seed": None},
        {"prompt": SUM, "steps": "many"},
        {"prompt": SUM},
        {"prompt": [5] * 250},
    ]
    prompts = write_lines(tmp_path / "p.jsonl", *lines)
    status, out, err = difftrace("record", "--prompts", prompts, *SHORT, "--out", tmp_path / "out")
    assert (status, out, (tmp_path / "out").exists()) == (2, "", False)
    told = err.splitlines()
    assert ["line 2" in told[0], "line 3" in told[1], "line 4" in told[2], "line 5" in told[3]] == [True] * 4
    assert "7 is no multiple of block_length 2" in told[0]
    assert "line 6: steps must be a positive integer, not 'many'" in told[4]
    assert "line 7: is the same as p.jsonl line 1; leave it out, or give each an id" in told[5]
    assert "line 8: 250 prompt tokens + gen_length 8 = 258 positions, but the model's" in told[6]


def test_prompts_with_the_same_arguments_can_make_one_baseline(difftrace: Command, tmp_path: Path) -> None:
    lines = [
        {"prompt": SUM, "id": "a"},
        {"prompt": "reverse lamp: ", "id": "b"},
        {"prompt": SUM, "id": "c"},
        {"prompt": SUM, "id": "d", "seed": 5},
    ]
    prompts = write_lines(tmp_path / "p.jsonl", *lines)
    command = ("record", "--prompts", prompts, *SHORT, "--batch", 2, "--out", tmp_path / "out")
    status, out, _ = difftrace(*command, "--json")
    found = document(out)["baselines"]
    assert (status, [one["prompts"] for one in found]) == (0, [["a", "b"], ["c"], ["d"]])
    both = load(found[0]["path"])
    assert [record.prompt_text for record in both.sequences] == [SUM, "reverse lamp: "]
    assert both.test == TestId("p.jsonl", "a, b", None)
    assert both.sequences[0].trajectory.attention_mask is not None
    assert difftrace(*command)[1].endswith("3 baselines: 3 unchanged\n")
    assert difftrace("verify", tmp_path / "out")[0] == 0


def test_an_interruption_leaves_whole_files_and_says_how_many(
    difftrace: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def until_third(*given: Any, **named: Any) -> object:
        calls.append(given)
        if len(calls) % 3 == 0:
            raise KeyboardInterrupt
        return record_one(*given, **named)

    monkeypatch.setattr("difftrace.verification.record.record", until_third)
    many = [word for number in range(4) for word in ("--prompt", f"{number} + 1 = ")]
    folder = tmp_path / "out"
    status, out, err = difftrace("record", *many, *SHORT, "--out", folder)
    assert status == 2
    assert out.endswith("4 baselines: 2 new, 2 not run\n")
    # The terminal shows ^C on the line that click ends first.
    assert err.split("\n") == [
        "difftrace: stopped after 2 of 4; 2 written, each of them whole",
        "",
        "difftrace: interrupted",
        "",
    ]
    assert len([load(path) for path in folder.iterdir()]) == 2
    status, out, _ = difftrace("record", *many, *SHORT, "--out", folder, "--json")
    found = document(out)
    assert (status, found["complete"], found["written"], statuses(out)) == (2, False, 0, ["unchanged"] * 2)


def test_a_file_that_cannot_be_written_ends_it_with_a_2(
    difftrace: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    status, out, err = difftrace("record", "--prompt", SUM, *SHORT, "--out", tmp_path / "out")
    assert (status, out) == (2, "1 baseline: 1 not run\n")
    assert "stopped after 0 of 1; 0 written" in err
    assert "free space on its disk" in err
    assert contents(tmp_path / "out") == {}


def test_whatever_a_prompt_is_called_its_file_stays_in_the_folder(difftrace: Command, tmp_path: Path) -> None:
    ids = [
        "../../up",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "A",
        "a",
        "con",
        ".",
        "..",
        "x\n::error::y\x1b[31m",
        "é" * 300,
        "-o",
    ]
    prompts = write_lines(tmp_path / "p.jsonl", *({"prompt": [5], "id": one, "gen_length": 1} for one in ids))
    folder = tmp_path / "deep" / "out"
    status, out, _ = difftrace("record", "--prompts", prompts, "--out", folder)
    assert status == 0
    names = [path.name.casefold() for path in folder.iterdir()]
    assert len(set(names)) == len(ids)
    assert {path.name for path in tmp_path.iterdir()} == {"p.jsonl", "deep"}
    assert "\x1b" not in out
    assert not any(line.lstrip().startswith("::") for line in out.splitlines())


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((), "give either --prompt, once or more, or --prompts FILE.jsonl"),
        (("--prompt", SUM, "--prompts", GOLDEN, "--out", "o"), "give either --prompt, once or more, or --prompts"),
        (("--prompt", SUM), "give either --out FOLDER or -o FILE"),
        (("--prompt", SUM, "--out", "o", "-o", "f.json"), "give either --out FOLDER or -o FILE"),
        (("--prompt", SUM, "--prompt", "2", "-o", "f.json"), "-o is one file, and these are several baselines"),
        (("--prompt", "", "--out", "o"), "prompt 1: the prompt is empty"),
        (("--prompt", SUM, "--out", "o", "--gen-length", 0), "0 is not in the range"),
        (("--prompt", SUM, "--out", "o", "--steps", 3, "--gen-length", 8, "--block-length", 4), "cannot be divided"),
        (("--prompt", SUM, "--out", "o", "--remasking", "none"), "'none' is not one of"),
        (("--prompt", SUM, "--out", "o", "--model", "/absent"), "no such folder"),
        (("--prompt", SUM, "--out", "o", "--model", "me/big"), "needs revision="),
        (("--prompt", SUM, "--out", "o", "--dtype", "int3"), "dtype must be auto"),
        (("--prompt", SUM, "--out", "o", "--scope", "some"), "'some' is not one of"),
        (("--prompts", "absent.jsonl", "--out", "o"), "does not exist"),
    ],
)
def test_usage_errors_exit_with_2_and_write_nothing(
    difftrace: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[object, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = difftrace("record", *given)
    assert (status, out, list(tmp_path.iterdir())) == (2, "", [])
    assert says in err


def test_the_options_are_the_samplers() -> None:
    assert sampler_options.REMASKING == sampler.REMASKING
    assert sampler_options.NOISES == sampler.NOISES
    assert sampler_options.TIE_BREAKS == sampler.TIE_BREAKS
    assert set(OPTIONS) == set(sampler.SamplerArguments.__dataclass_fields__)
