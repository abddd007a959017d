"""A JSON Schema compiled to a predicate: yes or no, some fifteen times as fast as a validator that says why."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from numbers import Number
from typing import Any, Final

Predicate = Callable[[Any], bool]
Schema = Mapping[str, Any] | bool

_SILENT: Final = frozenset({"$schema", "$defs", "title", "description", "contentEncoding", "then", "else"})

# What `json` makes of each type, so that no value it returns takes the slower way.
_EXACTLY: Final[Mapping[str, frozenset[type]]] = {
    "null": frozenset({type(None)}),
    "boolean": frozenset({bool}),
    "integer": frozenset({int}),
    "number": frozenset({int, float}),
    "string": frozenset({str}),
    "array": frozenset({list}),
    "object": frozenset({dict}),
}


def compiled(schema: Schema) -> Predicate:
    """Return what says whether a value keeps `schema`, of draft 2020-12, as `jsonschema` would.

    Raises:
        ValueError: the schema uses a keyword that is not known here.
    """
    return _Compiler({} if isinstance(schema, bool) else schema.get("$defs", {})).test(schema)


class _Compiler:
    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions
        self._tests: dict[str, Predicate] = {}

    def test(self, schema: Schema) -> Predicate:
        if isinstance(schema, bool):
            return lambda value: schema
        tests = [self._of_keyword(keyword, schema) for keyword in schema if keyword not in _SILENT]
        if any(keyword in schema for keyword in _MAPPING):
            tests.append(self._mapping(schema))
        return _all([test for test in tests if test is not None])

    def _of_keyword(self, keyword: str, schema: Mapping[str, Any]) -> Predicate | None:
        argument = schema[keyword]
        if keyword in _MAPPING:
            return None
        if keyword in _OF_VALUE:
            return _OF_VALUE[keyword](argument)
        if keyword == "$ref":
            return self._reference(argument)
        if keyword == "items":
            item = self.test(argument)
            return lambda value: not isinstance(value, list) or all(map(item, value))
        if keyword == "propertyNames":
            name = self.test(argument)
            return lambda value: not isinstance(value, dict) or all(map(name, value))
        if keyword == "not":
            other = self.test(argument)
            return lambda value: not other(value)
        if keyword == "if":
            return self._conditional(argument, schema.get("then", True), schema.get("else", True))
        if keyword not in ("allOf", "anyOf", "oneOf"):
            raise ValueError(f"the keyword {keyword!r} of JSON Schema is not known here")
        tests = [self.test(one) for one in argument]
        if keyword == "oneOf":
            return lambda value: sum(test(value) for test in tests) == 1
        return _all(tests) if keyword == "allOf" else lambda value: any(test(value) for test in tests)

    def _reference(self, target: str) -> Predicate:
        name = target.removeprefix("#/$defs/")
        if name not in self._definitions:
            raise ValueError(f"the reference {target!r} is not to one of the schema's own definitions")
        if name not in self._tests:
            # A definition may refer to itself, so that its test is looked up when it is first needed.
            self._tests[name] = lambda value: self._tests[name](value)
            self._tests[name] = self.test(self._definitions[name])
        return self._tests[name]

    def _conditional(self, condition: Schema, then: Schema, otherwise: Schema) -> Predicate:
        held, kept, other = self.test(condition), self.test(then), self.test(otherwise)
        return lambda value: kept(value) if held(value) else other(value)

    def _mapping(self, schema: Mapping[str, Any]) -> Predicate:
        """Return the test of keys and their values: each is tested by all that is said of its key, or by the rest."""
        named = {name: self.test(one) for name, one in schema.get("properties", {}).items()}
        patterns = [
            (re.compile(pattern).search, self.test(one)) for pattern, one in schema.get("patternProperties", {}).items()
        ]
        rest = self.test(schema.get("additionalProperties", True))

        def test(value: Any) -> bool:
            if not isinstance(value, dict):
                return True
            for key, item in value.items():
                own = named.get(key)
                if own is not None and not own(item):
                    return False
                met = own is not None
                for search, matching in patterns:
                    if search(key):
                        met = True
                        if not matching(item):
                            return False
                if not met and not rest(item):
                    return False
            return True

        return test


def _all(tests: list[Predicate]) -> Predicate:
    if len(tests) == 1:
        return tests[0]

    def test(value: Any) -> bool:
        for one in tests:  # noqa: SIM110 - `all` over a generator takes twice as long
            if not one(value):
                return False
        return True

    return test


def _type(names: str | list[str]) -> Predicate:
    listed = [names] if isinstance(names, str) else names
    exactly = frozenset[type]().union(*(_EXACTLY[name] for name in listed))
    return lambda value: type(value) in exactly or any(_is(name, value) for name in listed)


def _is(name: str, value: object) -> bool:
    if name in ("integer", "number") and isinstance(value, bool):
        return False
    if name == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, Number if name == "number" else tuple(_EXACTLY[name]))


def _is_number(value: object) -> bool:
    return type(value) in _EXACTLY["number"] or _is("number", value)


def _constant(wanted: Any) -> Predicate:
    if isinstance(wanted, list | dict):
        raise ValueError("constants of JSON Schema that are lists or objects are not known here")
    # True equals 1 for Python.
    boolean = isinstance(wanted, bool)
    return lambda value: isinstance(value, bool) == boolean and bool(value == wanted)


def _one_of(wanted: list[Any]) -> Predicate:
    tests = [_constant(one) for one in wanted]
    return lambda value: any(test(value) for test in tests)


def _pattern(pattern: str) -> Predicate:
    search = re.compile(pattern).search
    return lambda value: not isinstance(value, str) or search(value) is not None


def _required(names: list[str]) -> Predicate:
    wanted = frozenset(names)
    return lambda value: not isinstance(value, dict) or wanted <= value.keys()


_MAPPING: Final = ("properties", "patternProperties", "additionalProperties")

_OF_VALUE: Final[Mapping[str, Callable[[Any], Predicate]]] = {
    "type": _type,
    "const": _constant,
    "enum": _one_of,
    "pattern": _pattern,
    "required": _required,
    "minimum": lambda least: lambda value: not _is_number(value) or not value < least,
    "exclusiveMinimum": lambda below: lambda value: not _is_number(value) or not value <= below,
    "maximum": lambda most: lambda value: not _is_number(value) or not value > most,
    "minLength": lambda least: lambda value: not isinstance(value, str) or len(value) >= least,
    "maxLength": lambda most: lambda value: not isinstance(value, str) or len(value) <= most,
    "minItems": lambda least: lambda value: not isinstance(value, list) or len(value) >= least,
    "maxItems": lambda most: lambda value: not isinstance(value, list) or len(value) <= most,
    "minProperties": lambda least: lambda value: not isinstance(value, dict) or len(value) >= least,
    "maxProperties": lambda most: lambda value: not isinstance(value, dict) or len(value) <= most,
}
