"""A compiled schema accepts and refuses exactly what the validator of jsonschema does."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from difftrace.core import schemas
from difftrace.core.compiled_schema import compiled

SCHEMAS = Path(__file__).parents[2] / "schemas"
DIGEST = f"sha256:{'ab' * 32}"

BASELINE: dict[str, Any] = {
    "format": "difftrace-baseline",
    "version": "1.0",
    "test": {"module": "test_a.py", "id": "test_a", "name": None},
    "model": {
        "name": "model",
        "revision": None,
        "weights": DIGEST,
        "config": DIGEST,
        "tokenizer": None,
        "vocab_size": 100,
        "mask_token_id": 99,
    },
    "sampler": {"name": "llada", "version": 1, "arguments": {"seed": 0, "temperature": 0.5, "name": None}},
    "environment": {"dtype": "float32", "threads": 1, "flags": ["a", 1, None]},
    "pieces": {"0": "a", "17": "b", "99": "[MASK]"},
    "digest": DIGEST,
    "budget": {"scores": 0.1, "confidences": 0, "logits": 1.5, "measured": {"basis": "two machines"}},
    "logits": {
        "file": "a.logits",
        "digest": DIGEST,
        "method": {"name": "lossy", "bound": 0.01},
        "dtype": "bfloat16",
        "steps": 2,
        "passes": 1,
        "vocabulary": 100,
        "lengths": [4, 4],
    },
    "sequences": [
        {
            "text": "text",
            "prompt_text": None,
            "digest": DIGEST,
            "prompt_length": 1,
            "canvas_length": 4,
            "steps": 2,
            "events": 3,
            "decisions": "1wEAAA==",
            "evidence": {"digest": DIGEST, "payload": "5wEAAA=="},
        }
    ],
    "probes": [{"step": 0, "sequence": None, "size": 10, "digest": DIGEST, "payload": "AAAA"}],
}

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([1 << 20, (1 << 20) + 1, 1 << 31, (1 << 31) + 1, 1 << 63, 0.0, 1.0, 5.0, 0.5, -1.5, 1e300]),
    st.sampled_from(["", "a", "0", "01", "12345678901", "0.1", "0.2", "lossless", "top", "k", "bound", "a.logits"]),
    st.sampled_from([DIGEST, f"{DIGEST}\n", DIGEST.upper(), "a/b", "budget", "probes", "evidence", "\ud800"]),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars.map(str), inner, max_size=3)
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places(item, (*path, key))


@st.composite
def mutated(draw: st.DrawFn, document: dict[str, Any]) -> Any:
    """Return `document` with up to three values replaced, taken out, put in, or moved to another place."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(0, 3))):
        places = list(_places(document))
        path = draw(st.sampled_from(places))
        if not path:
            continue
        holder: Any = document
        for key in path[:-1]:
            holder = holder[key]
        change = draw(st.sampled_from(["replace", "remove", "add", "move"]))
        if change == "remove":
            del holder[path[-1]]
        elif change == "add" and isinstance(holder, dict):
            holder[draw(scalars.map(str))] = draw(values)
        elif change == "add":
            holder.insert(path[-1], draw(values))
        elif change == "move":
            other: Any = document
            for key in draw(st.sampled_from(places)):
                other = other[key]
            holder[path[-1]] = copy.deepcopy(other)
        else:
            holder[path[-1]] = draw(values)
    return document


def _accepts(schema: Any, *documents: Any) -> list[bool]:
    accepts, validator = compiled(schema), Draft202012Validator(schema)
    accepted = [accepts(document) for document in documents]
    assert accepted == [validator.is_valid(document) for document in documents]
    return accepted


@pytest.mark.parametrize("name", sorted(path.name.removesuffix(".schema.json") for path in SCHEMAS.glob("*.json")))
def test_every_schema_compiles_and_refuses_what_is_nothing_of_its_kind(name: str) -> None:
    keeps = schemas.kept(name)
    for document in (None, [], {}, "text", 1, {"format": f"difftrace-{name}"}):
        assert keeps(document) == schemas.validator(name).is_valid(document)


def test_the_document_that_is_mutated_keeps_its_schema() -> None:
    assert schemas.violation("baseline", BASELINE) is None


@given(mutated(BASELINE))
def test_mutated_baselines_are_accepted_and_refused_alike(document: Any) -> None:
    assert schemas.kept("baseline")(document) == schemas.validator("baseline").is_valid(document)


@given(st.data())
def test_every_value_at_every_place_of_a_baseline_is_accepted_and_refused_alike(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from([place for place in _places(BASELINE) if place]))
    document: Any = copy.deepcopy(BASELINE)
    holder = document
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = data.draw(values)
    assert schemas.kept("baseline")(document) == schemas.validator("baseline").is_valid(document)


_NAMES = ("a", "b", "12")
_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")


def _keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Schemas of up to three keywords: any that the product's own use."""
    few = st.lists(st.sampled_from(_TYPES), min_size=1, max_size=3, unique=True)
    arguments = {
        "type": st.sampled_from(_TYPES) | few,
        "const": scalars,
        "enum": st.lists(scalars, min_size=1, max_size=3),
        **dict.fromkeys(("minimum", "exclusiveMinimum", "maximum"), st.sampled_from([-1, 0, 0.5, 1, 1.0, 2])),
        **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), st.integers(0, 2)),
        **dict.fromkeys(("minProperties", "maxProperties"), st.integers(0, 2)),
        "pattern": st.sampled_from(["^a$", "[0-9]", "^$"]),
        "required": st.lists(st.sampled_from(_NAMES), max_size=2, unique=True),
        "properties": st.dictionaries(st.sampled_from(_NAMES), inner, max_size=2),
        "patternProperties": st.dictionaries(st.sampled_from(["^a", "[0-9]", "b$"]), inner, max_size=2),
        **dict.fromkeys(("additionalProperties", "items", "propertyNames", "not", "if", "then", "else"), inner),
        **dict.fromkeys(("allOf", "anyOf", "oneOf"), st.lists(inner, min_size=1, max_size=2)),
        "$ref": st.sampled_from(["#/$defs/one", "#/$defs/two"]),
    }
    one = st.sampled_from(list(arguments)).flatmap(lambda name: st.tuples(st.just(name), arguments[name]))
    return st.lists(one, max_size=3).map(dict)


subschemas = st.recursive(st.booleans() | st.sampled_from(_TYPES).map(lambda name: {"type": name}), _keywords)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=3)
)


@given(_keywords(subschemas), st.lists(documents, min_size=1, max_size=5))
def test_every_keyword_means_what_it_does_to_jsonschema(schema: dict[str, Any], tried: list[Any]) -> None:
    # The definitions test a value by each other's parts, never the value itself again, which would not end.
    definitions = {
        "one": {"type": ["array", "integer"], "items": {"$ref": "#/$defs/two"}},
        "two": {"type": ["array", "string"], "items": {"$ref": "#/$defs/one"}},
    }
    _accepts({**schema, "$defs": definitions}, *tried)


@pytest.mark.parametrize(
    ("schema", "refused", "accepted"),
    [
        ({"const": 1}, True, 1.0),
        ({"enum": [0, "a"]}, False, 0),
        ({"type": "integer"}, True, 5.0),
        ({"type": "number"}, False, 0.5),
    ],
)
def test_what_python_makes_equal_stays_different(schema: dict[str, Any], refused: object, accepted: object) -> None:
    assert _accepts(schema, refused, accepted) == [False, True]


@pytest.mark.parametrize(
    "schema", [{"uniqueItems": True}, {"items": {"format": "uri"}}, {"$ref": "other.json"}, {"const": []}]
)
def test_what_is_not_known_is_refused_rather_than_left_out(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"(is|are) not known here|is not to one of"):
        compiled(schema)


def test_a_document_that_keeps_its_schema_is_not_validated_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    monkeypatch.setattr(schemas, "validator", refuse)
    assert schemas.violation("baseline", json.loads(json.dumps(BASELINE))) is None
