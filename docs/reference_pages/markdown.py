"""Text of the code as Markdown: escaped words, fenced blocks, docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence

_SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):")
_BULLET = re.compile(r"- ")
_ENTRY = re.compile(r"([\w*`., ]+?): (.*)", re.DOTALL)
_CODE = re.compile(r"(`[^`]*`)")


def fence(language: str, lines: Iterable[str]) -> list[str]:
    """Return a fenced block."""
    return [f"```{language}", *lines, "```", ""]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table; no cell may hold `|`, which renderers escape differently."""
    lines = [list(head), ["---"] * len(head), *map(list, rows)]
    for row in lines:
        assert not any("|" in cell or "\n" in cell for cell in row), row
    return ["| " + " | ".join(row) + " |" for row in lines] + [""]


def prose(text: str) -> str:
    """Return running text on one line, with what Markdown or HTML would act on escaped outside of code."""
    parts = _CODE.split(" ".join(text.split()))
    return "".join(part if index % 2 else _escaped(part) for index, part in enumerate(parts))


def _escaped(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("*", r"\*").replace("__", r"\_\_")
    return text.replace("](", r"]\(")


def docstring(documented: object) -> list[str]:
    """Return the docstring of `documented`; sections become lists, indented lines become code."""
    lines: list[str] = []
    section = False
    for block in _blocks(inspect.getdoc(documented) or ""):
        first = block[0]
        matched = _SECTION.fullmatch(first)
        if matched is not None:
            section = True
            lines += [f"*{matched[1]}*", ""]
            block = [line[4:] for line in block[1:]]
            lines += [*_entries(block), ""]
        elif first.startswith("    ") and not section:
            lines += fence("python", [line[4:] for line in block])
        elif _BULLET.match(first):
            lines += [*_items(block, _BULLET.match), ""]
        else:
            lines += [prose(" ".join(block)), ""]
    return lines


def _blocks(text: str) -> list[list[str]]:
    """Return the paragraphs; a section's head belongs to what stands indented below it."""
    return [paragraph.splitlines() for paragraph in re.split(r"\n\s*\n", text) if paragraph.strip()]


def _entries(block: list[str]) -> list[str]:
    """Return "name: what it is" as list items."""
    items = []
    for item in _joined(block, lambda line: not line.startswith(" ")):
        matched = _ENTRY.fullmatch(item)
        items.append(f"- `{matched[1].strip('`')}`: {prose(matched[2])}" if matched else f"- {prose(item)}")
    return items


def _items(block: list[str], starts: Callable[[str], object]) -> list[str]:
    return [f"- {prose(item[2:])}" for item in _joined(block, starts)]


def _joined(block: list[str], starts: Callable[[str], object]) -> list[str]:
    """Return items with their continuation lines."""
    items: list[str] = []
    for line in block:
        if starts(line) or not items:
            items.append(line.strip())
        else:
            items[-1] += " " + line.strip()
    return items
