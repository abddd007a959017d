"""The JSON Schemas of the files the product writes, and the check of a document against one."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from difftrace.core.compiled_schema import Predicate, compiled
from difftrace.core.text import printable

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator, ValidationError

_LONGEST_MESSAGE: Final = 200


@lru_cache(maxsize=16)
def schema_text(name: str) -> str:
    """Return the text of the schema `name` ("baseline"), from the wheel or from a checkout's schemas/
    folder."""
    packaged = resources.files("difftrace") / "schemas" / f"{name}.schema.json"
    checkout = Path(__file__).parents[3] / "schemas" / f"{name}.schema.json"
    return (packaged if packaged.is_file() else checkout).read_text(encoding="utf-8")


@lru_cache(maxsize=16)
def validator(name: str) -> Draft202012Validator:
    """Return the validator of the schema `name`, built once."""
    # Importing jsonschema takes about 80 ms, which reading a bare trajectory need not pay.
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json.loads(schema_text(name)))


@lru_cache(maxsize=16)
def kept(name: str) -> Predicate:
    """Return what says whether a document keeps the schema `name`, yes or no, built once."""
    return compiled(json.loads(schema_text(name)))


def violation(name: str, document: Any) -> str | None:
    """Return one line saying where and how `document` breaks the schema `name`, or None if it keeps it."""
    # The first one only: a hostile document may hold millions.
    return next(iter(violations(name, document, 1)), None)


def violations(name: str, document: Any, most: int) -> list[str]:
    """Return a line for each of the first `most` places where `document` breaks the schema `name`."""
    # Nearly every document keeps its schema; only of one that does not has to be said where.
    if kept(name)(document):
        return []
    return [_line(error) for error in islice(validator(name).iter_errors(document), most)]


def _line(error: ValidationError) -> str:
    message = printable(error.message)
    if len(message) > _LONGEST_MESSAGE:
        message = f"{message[: _LONGEST_MESSAGE // 2]} … {message[-_LONGEST_MESSAGE // 2 :]}"
    return f"{printable(error.json_path)}: {message}"
