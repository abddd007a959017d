"""The files and JSON documents the product writes, from their schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reference_pages.markdown import prose

_SCHEMAS = Path(__file__).parents[2] / "schemas"
# Those that stay on disk come first, and in full; what commands print follows.
_KEPT = ("baseline", "layers", "store_export", "weights_digest", "benchmark", "training")
_HEAD = """# Files and formats

Every JSON document that DiffTrace writes has a JSON Schema (draft 2020-12), which is part of the package and is what it
is checked against when written and when read. Nothing in a file is ever executed or unpickled. The schemas lie in
`schemas/` of the sources and in `difftrace/schemas/` of an installed package.

## Where baselines lie

`__difftrace__/<module>/<Class.test[param]>[.<name>][~<hash>][@<platform>].json`, beside the test module. The hash is
there only where the readable part alone could be mistaken for another test's. A baseline recorded with
`record="logits"` has a second file beside it, `<the same name>.logits`, to which it refers by digest; see
[keeping logits](../how-to/logits.md).
"""
_DEPTH = 2


def page() -> str:
    """Return the page."""
    names = sorted(path.name.removesuffix(".schema.json") for path in _SCHEMAS.glob("*.schema.json"))
    lines = [_HEAD]
    for title, chosen in (
        ("Files", [name for name in _KEPT if name in names]),
        ("What commands print with --json, and reports", [name for name in names if name not in _KEPT]),
    ):
        lines += [f"## {title}", ""]
        for name in chosen:
            lines += _schema(name, json.loads((_SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8")))
    return "\n".join(lines)


def _schema(name: str, schema: dict[str, Any]) -> list[str]:
    lines = [f"### {name}.schema.json", "", f"**{prose(schema['title'])}.** {prose(schema.get('description', ''))}", ""]
    fields = _fields(schema, schema, 0)
    return [*lines, *fields, ""] if fields else lines


def _fields(schema: dict[str, Any], root: dict[str, Any], depth: int) -> list[str]:
    lines = []
    for name, given in schema.get("properties", {}).items():
        if not isinstance(given, dict):
            continue
        field = _resolved(given, root)
        about = [given.get("description") or field.get("description", "")]
        if "const" in field:
            about.append(f"Always `{json.dumps(field['const'])}`.")
        about += [] if name in schema.get("required", ()) else ["Optional."]
        text = " ".join(filter(None, about))
        lines.append(f"{'    ' * depth}- `{name}`{_kind(field)}{': ' + prose(text) if text else ''}")
        if depth + 1 < _DEPTH:
            lines += _fields(_items(field, root), root, depth + 1)
    return lines


def _items(field: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    return _resolved(field["items"], root) if isinstance(field.get("items"), dict) else field


def _resolved(field: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in field:
        target: Any = root
        for part in field["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        field = target
    return field


def _kind(field: dict[str, Any]) -> str:
    kinds = field.get("type")
    if kinds is None:
        return ""
    return f" ({' or '.join(kinds) if isinstance(kinds, list) else kinds})"
