"""The difftrace settings of the ini file that pytest would use in a folder, without pytest."""

from __future__ import annotations

import configparser
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

_PREFIX: Final = "difftrace_"
# In the order in which pytest looks (docs.pytest.org, "Configuration file formats"), with the tables it reads there.
# The first two are its own: one is used even where it says nothing.
_FILES: Final = (
    ("pytest.toml", ("pytest",)),
    (".pytest.toml", ("pytest",)),
    ("pytest.ini", ("pytest",)),
    (".pytest.ini", ("pytest",)),
    ("pyproject.toml", ("tool.pytest", "tool.pytest.ini_options")),
    ("tox.ini", ("pytest",)),
    ("setup.cfg", ("tool:pytest",)),
)


def ini_settings(folder: Path) -> dict[str, Any] | None:
    """Return {"file": its name, "options": the difftrace options as texts}, or None where there is no such file.

    The first file in `folder` or the nearest folder above is meant that configures pytest. A file that cannot be read
    has the options None.
    """
    for parent in (folder, *folder.parents):
        for name, tables in _FILES:
            path = parent / name
            if not path.is_file():
                continue
            try:
                found = list(_tables(path, tables))
            except (OSError, ValueError, configparser.Error, ImportError):
                return {"file": name, "options": None}
            if found or name.startswith(("pytest.", ".pytest.")):
                return {"file": name, "options": dict(sorted(_options(found)))}
    return None


def _tables(path: Path, names: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".toml":
        # Python 3.10 has no reader of TOML, which is to say that such a file cannot be read.
        document: Any = import_module("tomllib").loads(path.read_text(encoding="utf-8"))
        for name in names:
            table = document
            for key in name.split("."):
                table = table.get(key) if isinstance(table, Mapping) else None
            if isinstance(table, Mapping):
                yield table
        return
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(path.read_text(encoding="utf-8"))
    yield from (parser[name] for name in names if parser.has_section(name))


def _options(tables: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for table in tables:
        for name, value in table.items():
            if name.startswith(_PREFIX):
                yield name, " ".join(map(str, value)) if isinstance(value, list) else " ".join(str(value).split())
