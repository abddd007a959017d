"""The fenced blocks of a Markdown page, and what the comments above each say of it.

- `<!-- not run: needs a GPU -->`: it is not run, for one of the reasons in NOT_RUN
- `<!-- exits with 1 -->`: its last command has this exit status
- `<!-- output -->`: it is what the block before printed; `…` stands for anything
- `<!-- in a copy of examples/quickstart -->`: what lies there is in the page's folder from here on
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

NOT_RUN = frozenset(
    {
        "changes your shell",
        "installs packages",
        "needs a download",
        "needs a GPU",
        "needs another package",
        "needs GitHub",
        "needs several ranks",
        "run by .ci/run",
    }
)
_COMMENT = re.compile(r"<!-- (.+?) -->")
_FENCE = re.compile(r"(\s*)(`{3,}|~{3,})(.*)")
_KNOWN = re.compile(r"not run: .+|exits with \d|output|in a copy of .+")


@dataclass
class Block:
    """One fenced block: its language, its text, the line it begins in, and the comments above it."""

    language: str
    line: int
    comments: list[str]
    lines: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)

    @property
    def reason(self) -> str | None:
        """Why it is not run, None if it is."""
        return next((one.removeprefix("not run: ") for one in self.comments if one.startswith("not run: ")), None)

    @property
    def status(self) -> int:
        return next((int(one.split()[-1]) for one in self.comments if one.startswith("exits with ")), 0)

    @property
    def is_output(self) -> bool:
        return "output" in self.comments

    @property
    def file_name(self) -> str | None:
        """The name in a first line such as `# test_sum.py`, under which the page's reader is to keep it."""
        matched = re.fullmatch(r"# ([\w./-]+\.\w+)", self.lines[0]) if self.lines else None
        return matched[1] if matched else None

    @property
    def example(self) -> str | None:
        start = "in a copy of "
        return next((one.removeprefix(start) for one in self.comments if one.startswith(start)), None)


def blocks(page: Path) -> list[Block]:
    """Return the blocks of `page`; raises ValueError for one that no test could run."""
    found: list[Block] = []
    comments: list[str] = []
    current: Block | None = None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.fullmatch(line)
        if current is not None:
            if fence is not None and not fence[3]:
                current = None
            else:
                current.lines.append(line)
        elif fence is not None:
            if fence[1] or not fence[3]:
                raise ValueError(f"{page.name}:{number}: a block is indented or names no language")
            current = Block(fence[3], number, comments)
            found.append(current)
            comments = []
        elif (comment := _COMMENT.fullmatch(line)) and _KNOWN.fullmatch(comment[1]):
            comments.append(comment[1])
        elif line.strip():
            if comments:
                raise ValueError(f"{page.name}:{number}: {comments} stands above no block")
            comments = []
    if current is not None:
        raise ValueError(f"{page.name}:{current.line}: the block does not end")
    return found


def shown_in(block: Block, output: str) -> bool:
    """Say whether `output` holds the lines of `block` one below the other; `…` stands for anything within a line, and
    alone on a line for any lines."""
    pattern = "".join(r"(?:.*\n)*?" if line.strip() == "…" else _line(line) for line in block.lines)
    printed = "".join(f"{line.rstrip()}\n" for line in output.splitlines())
    return re.search(rf"^{pattern}", printed, re.MULTILINE) is not None


def _line(line: str) -> str:
    return ".*".join(re.escape(part) for part in line.rstrip().split("…")) + r" *\n"
