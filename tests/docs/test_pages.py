"""Whatever README and docs show is run as they show it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from documents.blocks import NOT_RUN, Block, blocks, shown_in

CHECKOUT = Path(__file__).parents[2]
MADE = "<!-- Made from the code by docs/generate.py"
WRITTEN = sorted(
    page
    for page in (
        CHECKOUT / "README.md",
        CHECKOUT / "CONTRIBUTING.md",
        *CHECKOUT.glob("docs/**/*.md"),
        *CHECKOUT.glob("examples/**/*.md"),
    )
    if not page.read_text(encoding="utf-8").startswith(MADE)
)


def name_of(page: Path) -> str:
    return page.relative_to(CHECKOUT).as_posix()


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_what_a_page_shows_happens(page, reader, pytester):
    reads = reader()
    for block in blocks(page):
        if block.example is not None:
            without = shutil.ignore_patterns("__pycache__")
            shutil.copytree(CHECKOUT / block.example, pytester.path, dirs_exist_ok=True, ignore=without)
        if block.reason is None:
            reads.read(page, block)
    assert not reads.unread, f"{name_of(page)} shows tests that it runs with no command: {reads.unread}"


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_a_block_that_is_not_run_says_why(page):
    reasons = {block.reason for block in blocks(page)} - {None}
    assert reasons <= NOT_RUN


@pytest.mark.parametrize("page", ["README.md", "docs/how-to/reviewing.md"])
def test_a_page_shows_the_lines_for_git_that_the_help_shows(page):
    from difftrace.cli.show import command

    shown = [
        line.strip() for line in (command.help or "").splitlines() if "diff=difftrace" in line or "git config" in line
    ]
    assert len(shown) == 2
    assert set(shown) <= set((CHECKOUT / page).read_text(encoding="utf-8").splitlines())


def test_an_output_has_to_be_that_of_the_command_line_by_line():
    block = Block("text", 1, ["output"], ["first … here", "…", "last"])
    assert shown_in(block, "before\nfirst line here\nand\nmore\nlast\nafter\n")
    assert not shown_in(block, "first line here\nmore\nlast of all\n")
    assert not shown_in(block, "last\nfirst line here\n")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```\nls\n```\n", "names no language"),
        ("- item\n\n    ```python\n    1\n    ```\n", "indented"),
        ("<!-- output -->\nno block\n", "above no block"),
        ("```python\n1\n", "does not end"),
    ],
)
def test_a_block_that_no_test_could_run_is_refused(tmp_path, text, complaint):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        blocks(page)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "examples/quickstart/README.md"])
def test_a_link_from_outside_docs_leads_somewhere(page):
    # Those between pages of docs are checked by the strict build.
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in target]
    missing = [target for target in targets if not (CHECKOUT / page).parent.joinpath(target).exists()]
    assert missing == []
