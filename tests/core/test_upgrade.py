"""Upgrading changes the version and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from difftrace.core.baseline import Baseline, dump, parse
from difftrace.core.baseline_json import READABLE, VERSION, problems
from difftrace.core.errors import FormatError, NewerFormatError
from difftrace.core.upgrade import upgraded

FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("baseline-*.json"))


def test_there_is_a_fixture_of_every_older_version() -> None:
    older = {".".join(map(str, version)) for version in READABLE if version != VERSION}
    assert {path.stem.removeprefix("baseline-") for path in FIXTURES} == older


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_an_older_file_becomes_what_recording_it_today_would_write(path: Path) -> None:
    data = path.read_bytes()
    new = upgraded(data, "file")
    assert new == dump(parse(data, "file"))
    assert upgraded(new, "file") is new


def test_a_current_file_stays_as_it_is_however_it_is_written(baseline: Baseline) -> None:
    data = json.dumps(json.loads(dump(baseline)), indent=7).encode()
    assert upgraded(data, "file") is data


def test_what_is_broken_or_newer_is_refused(baseline: Baseline) -> None:
    data = dump(baseline)
    with pytest.raises(FormatError, match=r"^some file: "):
        upgraded(data[:-9], "some file")
    with pytest.raises(NewerFormatError, match="update it"):
        upgraded(json.dumps({**json.loads(data), "version": "9.0"}).encode(), "file")


def test_problems_are_those_of_every_field_and_every_sequence(baseline: Baseline) -> None:
    assert problems(dump(baseline), "file") == []
    document = json.loads(dump(baseline))
    document["model"]["mask_token_id"] = 126464
    document["pieces"]["999999"] = "x"
    document["sequences"][0]["events"] += 1
    document["sequences"][1]["decisions"] = "!"
    found = problems(json.dumps(document).encode(), "file")
    assert [line.partition(": ")[2].partition(":")[0] for line in found] == [
        "$.pieces",
        "$.model.mask_token_id",
        "$.sequences[0].events",
        "$.sequences[1].decisions",
    ]
    assert all(line.startswith("file: ") for line in found)


def test_a_file_of_nothing_but_problems_is_listed_in_a_few_lines(baseline: Baseline) -> None:
    document = json.loads(dump(baseline))
    document["pieces"] = {f"{number}": number for number in range(1000)}
    assert 5 < len(problems(json.dumps(document).encode(), "file")) <= 20


@pytest.mark.parametrize(
    "change", [{"digest": f"sha256:{'0' * 64}"}, {"test": {"module": "m", "id": "\ud800", "name": None}}]
)
def test_what_only_reading_as_a_whole_finds_is_a_problem_too(baseline: Baseline, change: dict[str, object]) -> None:
    document = {**json.loads(dump(baseline)), **change}
    [problem] = problems(json.dumps(document).encode(), "file")
    assert problem.startswith("file: $.")


def test_announced_sizes_are_checked_before_anything_is_expanded(baseline: Baseline) -> None:
    document = json.loads(dump(baseline))
    document["sequences"] = [{**document["sequences"][0], "events": 4_000_000} for _ in range(3)]
    [problem] = problems(json.dumps(document).encode(), "file")
    assert "more than the limit" in problem
