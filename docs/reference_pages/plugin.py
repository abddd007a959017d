"""The pytest plugin: options, ini settings, fixtures, marker."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import pytest_difftrace.plugin
from pytest_difftrace import options
from pytest_difftrace.checker import Checker
from reference_pages.api import member
from reference_pages.markdown import docstring, fence, prose

_HEAD = """# The pytest plugin

Everything that `pytest` learns from DiffTrace. An option on the command line overrules the ini setting of the same
meaning.
"""


@dataclass
class _Registered:
    """Hears what the plugin registers, in place of pytest's parser."""

    options: list[tuple[tuple[str, ...], dict[str, Any]]] = field(default_factory=list)
    settings: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def getgroup(self, *_names: str) -> _Registered:
        return self

    def addoption(self, *names: str, **attributes: Any) -> None:
        self.options.append((names, attributes))

    def addini(self, name: str, about: str, **attributes: Any) -> None:
        self.settings.append((name, about, attributes))


def page() -> str:
    """Return the page."""
    registered = _Registered()
    options.add_options(registered)  # type: ignore[arg-type]
    settings = {name for name, _, _ in registered.settings}
    lines = [_HEAD, "## Options", ""]
    for names, attributes in registered.options:
        lines += _option(names, attributes, settings)
    lines += ["## Ini settings", ""]
    lines += ["In `pytest.ini`, `tox.ini`, `setup.cfg` or `pyproject.toml`.", ""]
    for name, about, attributes in registered.settings:
        kind = attributes.get("type", "string")
        default = "false" if kind == "bool" else attributes.get("default")
        lines.append(f"- `{name}` ({kind}{f', default `{default}`' if default else ''}): {prose(about)}")
    lines += ["", "## Fixtures", ""]
    for name in pytest_difftrace.plugin.__all__:
        function = inspect.unwrap(getattr(pytest_difftrace.plugin, name))
        lines += [f"### {name}", "", *docstring(getattr(function, "__pytest_wrapped__", function))]
        if name == "difftrace":
            lines += member("difftrace.check", Checker.check) + member("difftrace.record", Checker.record)
        if name == "llada":
            from difftrace.verification import ModelRunner

            lines += member("llada.generate", ModelRunner.generate)
    signature, _, meaning = pytest_difftrace.plugin._MARKER.partition(": ")
    lines += ["## Marker", "", *fence("python", [f"@pytest.mark.{signature}"])]
    lines += [prose(meaning[0].upper() + meaning[1:]), ""]
    lines += ["Every marker counts, the nearest first: that of the test, of its class, of its module.", ""]
    return "\n".join(lines)


def _option(names: tuple[str, ...], attributes: dict[str, Any], settings: set[str]) -> list[str]:
    shown = [name if "metavar" not in attributes else f"{name}={attributes['metavar']}" for name in names]
    lines = [f"### {names[0]}", "", " ".join(f"`{name}`" for name in shown), "", prose(attributes["help"])]
    if "choices" in attributes:
        lines[-1] += f" One of {', '.join(f'`{choice}`' for choice in attributes['choices'])}."
    destination = attributes["dest"]
    setting = "difftrace_mode" if destination == "difftrace_verify" else destination
    if setting in settings:
        lines[-1] += f" Ini setting: `{setting}`."
    return [*lines, ""]
