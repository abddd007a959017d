"""The page as text: one file that loads nothing, whatever is shown in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib

from difftrace.reports.explorer import Entry, explorer_page

HOSTILE = "</script><script>alert(1)</script><!--\x1b[31m\u202e\n::error::x $policy ${title}"


def data_of(page: str) -> dict:
    (text,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def header_of(pack: str) -> dict:
    data = zlib.decompress(base64.b64decode(pack))
    return json.loads(data[4 : 4 + int.from_bytes(data[:4], "little")])


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


def test_past_its_limit_a_page_keeps_the_decisions_of_failed_checks_and_says_so(recording):
    def passed(name):
        return Entry(name, "passed", "verified", golden=recording(name, length=128, steps=64))

    failed = Entry("bad", "failed", "diverged", golden=recording(), observed=recording(seed=1))
    entries = [passed("one"), passed("two"), failed]
    whole = explorer_page("t", [], entries)
    assert len(explorer_page("t", [], entries, most=len(whole) + 200)) == len(whole)
    page = explorer_page("t", [], entries, most=len(whole) - 1000)
    assert len(page.encode()) <= len(whole) - 1000
    assert data_of(page)["facts"] == [["Left out", "the decisions of 1 check, to keep this page small"]]
    one, two, bad = (header_of(check["pack"]) for check in data_of(page)["checks"])
    assert (len(one["sequences"]), two["sequences"], len(bad["sequences"])) == (1, [], 1)
    assert "left out to keep this page small" in two["problems"][0]
    assert two["fields"] == one["fields"]
    smallest = [header_of(check["pack"]) for check in data_of(explorer_page("t", [], entries, most=0))["checks"]]
    assert [check["sequences"] for check in smallest] == [[], [], []]


def test_what_checks_have_in_common_is_there_once(recording):
    data = data_of(explorer_page("t", [], [Entry(str(i), "passed", "verified", golden=recording()) for i in range(3)]))
    headers = [header_of(check["pack"]) for check in data["checks"]]
    assert [header["fields"] for header in headers] == [headers[0]["fields"]] * 3
    shared = header_of(data["shared"])
    names = [shared["fields"][index][0] for index in headers[0]["fields"]]
    assert len(set(names)) == len(names) == len(shared["fields"])
    assert "environment.torch" in names
    assert len(set(shared["tokens"]["ids"])) == len(shared["tokens"]["ids"]) == len(shared["tokens"]["pieces"])


def test_the_same_checks_give_the_same_page(recording):
    pages = {
        explorer_page(
            "t", [("a", "b")], [Entry("x", "failed", "diverged", golden=recording(), observed=recording(seed=1))]
        )
        for _ in range(2)
    }
    assert len(pages) == 1
