from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from difftrace.core import schemas

FOLDER = Path(__file__).parents[2] / "schemas"
NAMES = sorted(path.name.removesuffix(".schema.json") for path in FOLDER.glob("*.schema.json"))


@pytest.mark.parametrize("name", NAMES)
def test_every_schema_is_valid_and_can_be_loaded(name: str) -> None:
    text = schemas.schema_text(name)
    assert text == (FOLDER / f"{name}.schema.json").read_text(encoding="utf-8")
    Draft202012Validator.check_schema(json.loads(text))


def test_there_is_a_schema_for_baselines() -> None:
    assert "baseline" in NAMES


def test_a_validator_is_built_once() -> None:
    assert schemas.validator("baseline") is schemas.validator("baseline")


def test_a_violation_is_one_short_printable_line_with_its_path() -> None:
    problem = schemas.violation("baseline", ["\x1b[31m::error::" * 1000])
    assert problem is not None
    assert problem.startswith("$: ")
    assert problem.isprintable()
    assert len(problem) < 300
