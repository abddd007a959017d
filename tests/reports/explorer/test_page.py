"""The page as text: one file that loads nothing, whatever is shown in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re

from difftrace.reports.explorer import Entry, explorer_page

HOSTILE = "</script><script>alert(1)</script><!--\x1b[31m\u202e\n::error::x $policy ${title}"


def data_of(page: str) -> dict:
    (text,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def test_the_policy_admits_the_one_style_and_the_one_script_and_nothing_else():
    page = explorer_page("t", [], [])
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#x27;", "'")
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in (script, style)]
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def test_nothing_that_is_shown_becomes_markup_or_a_command():
    entry = Entry(HOSTILE, "failed", HOSTILE, HOSTILE, facts=((HOSTILE, HOSTILE),), problems=(HOSTILE,))
    page = explorer_page(HOSTILE, [(HOSTILE, HOSTILE)], [entry])
    assert page.count("<script") == page.count("</script>") == 2
    assert "<!--" not in page
    assert all(character == "\n" or character.isprintable() for character in page)
    assert not any(line.lstrip().startswith("::") for line in page.splitlines())
    data = data_of(page)
    assert data["title"] == data["checks"][0]["test"] == data["facts"][0][0]
    assert data["title"].startswith("</script><script>alert(1)</script><!--\\x1b[31m\\u202e\\n::error")


def test_the_page_names_no_address_that_could_be_loaded():
    page = explorer_page("t", [], [])
    assert re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}|\burl\(|@import|\bsrc=|\bhref=", page) == []


def test_the_same_checks_give_the_same_page(recording):
    pages = {
        explorer_page(
            "t", [("a", "b")], [Entry("x", "failed", "diverged", golden=recording(), observed=recording(seed=1))]
        )
        for _ in range(2)
    }
    assert len(pages) == 1
