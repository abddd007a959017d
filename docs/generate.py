"""Write the reference pages from the code: `python docs/generate.py`, with `--check` only say whether they are right.

Exit status: 0 written or right, 1 with --check where a page is not what the code says.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from reference_pages import api, command_line, engines, errors, files, plugin, profiles, verdicts

DOCS = Path(__file__).parent
MARK = "<!-- Made from the code by docs/generate.py: change that, or the docstrings, not this file. -->"
PAGES: dict[str, Callable[[], str]] = {
    "reference/plugin.md": plugin.page,
    "reference/command-line.md": command_line.page,
    "reference/classes.md": verdicts.page,
    "reference/profiles.md": profiles.page,
    "reference/files.md": files.page,
    "reference/engines.md": engines.page,
    "reference/python.md": api.page,
    "reference/errors.md": errors.page,
}


def content(name: str) -> str:
    """Return what the page `name` has to hold."""
    page = PAGES[name]().rstrip("\n")
    return f"{MARK}\n\n{page}\n"


def stale() -> list[str]:
    """Return the pages that are not what the code says."""
    return [name for name in PAGES if not _is_right(name)]


def _is_right(name: str) -> bool:
    path = DOCS / name
    return path.is_file() and path.read_text(encoding="utf-8") == content(name)


def main(arguments: list[str]) -> int:
    """Write or check all pages."""
    if arguments not in ([], ["--check"]):
        print("usage: python docs/generate.py [--check]", file=sys.stderr)
        return 2
    changed = stale()
    for name in changed:
        if arguments:
            print(f"docs/{name} is not what the code says: run `python docs/generate.py`")
        else:
            (DOCS / name).parent.mkdir(parents=True, exist_ok=True)
            (DOCS / name).write_text(content(name), encoding="utf-8")
            print(f"docs/{name} written")
    return 1 if changed and arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
