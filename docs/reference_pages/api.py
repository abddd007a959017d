"""The public names of the library, from their signatures and docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from enum import Enum
from importlib import import_module
from types import ModuleType
from typing import Any

from reference_pages.markdown import docstring, fence, prose

_MODULES = (
    "difftrace",
    "difftrace.models",
    "difftrace.sampling",
    "difftrace.verification",
    "difftrace.capture",
    "difftrace.store",
    "difftrace.engine",
    "difftrace.utils.config",
)
_LINE = 100
_STARS = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}
_HEAD = """# Python

Importing `difftrace` imports nothing else; torch is loaded by the names that need it.
"""


def page() -> str:
    """Return the page."""
    lines = [_HEAD]
    shown: dict[int, str] = {}
    for name in _MODULES:
        module = import_module(name)
        lines += [f"## {name}", "", prose(_summary(module)), ""]
        for public in sorted(module.__all__, key=str.lower):
            if public.startswith("__"):
                continue
            found, full = getattr(module, public), f"{name}.{public}"
            if id(found) in shown:
                lines += [f"### {full}", "", f"The same as `{shown[id(found)]}`.", ""]
            else:
                shown[id(found)] = full
                lines += _documented(full, found)
    return "\n".join(lines)


def _summary(module: ModuleType) -> str:
    return (inspect.getdoc(module) or "").split("\n\n")[0]


def _documented(name: str, found: Any) -> list[str]:
    lines = [f"### {name}", ""]
    if inspect.isclass(found) and issubclass(found, Enum):
        # What it takes to make one, and its docstring where it has none, are those of Python's own.
        return [*lines, *(f"- `{one.name}`: `{one.value!r}`" for one in found), ""]
    if not inspect.isclass(found):
        return lines + fence("python", _signature(name, found)) + docstring(found)
    if not issubclass(found, BaseException) and not getattr(found, "_is_protocol", False):
        lines += fence("python", _signature(name, found))
    lines += docstring(found)
    for method_name, method in _members(found):
        lines += member(f"{found.__name__}.{method_name}", method)
    return lines


def member(name: str, method: Any) -> list[str]:
    """Return what is said of a method or property, without a heading of its own."""
    if isinstance(method, property) or not callable(method):
        return [f"**`{name}`**", "", *docstring(method)]
    return fence("python", _signature(name, method)) + docstring(method)


def _members(found: type) -> Iterator[tuple[str, Any]]:
    """Yield public methods and properties that this package defines."""
    seen = set()
    for owner in found.__mro__:
        if not owner.__module__.startswith("difftrace"):
            continue
        for name, value in vars(owner).items():
            if name.startswith("_") or name in seen:
                continue
            seen.add(name)
            if isinstance(value, (staticmethod, classmethod)):
                yield name, value.__get__(None, found)
            elif inspect.isfunction(value) or isinstance(value, property) or hasattr(value, "func"):
                yield name, value


def _signature(name: str, function: Callable[..., Any]) -> list[str]:
    """Return the signature, with one parameter to a line where it is long."""
    signature = inspect.signature(function)
    if inspect.isclass(function):
        signature = signature.replace(return_annotation=inspect.Signature.empty)
    parts: list[str] = []
    star = False
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            star = True
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            parts, star = [*parts, "*"], True
        parts.append(_STARS.get(parameter.kind.name, "") + _parameter(parameter))
    end = f") -> {_type(signature.return_annotation)}" if _has_type(signature.return_annotation) else ")"
    line = f"{name}({', '.join(parts)}{end}"
    return [line] if len(line) <= _LINE else [f"{name}(", *(f"    {part}," for part in parts), end]


def _parameter(parameter: inspect.Parameter) -> str:
    text = parameter.name
    if _has_type(parameter.annotation):
        text += f": {_type(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        default = repr(parameter.default)
        text += f" = {'…' if default.startswith('<') else default}"
    return text


def _has_type(annotation: object) -> bool:
    return annotation is not inspect.Signature.empty


def _type(annotation: object) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
