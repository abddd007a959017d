"""File names of prompts are safe, tell all of them apart, and do not change when others join."""

from __future__ import annotations

import re

from difftrace.core.prompt_names import file_names, prompt_test
from difftrace.core.prompts import Prompt
from difftrace.core.test_id import TestId


def prompt(content: str | tuple[int, ...], name: str | None = None, **options: object) -> Prompt:
    return Prompt("here", content, name, options)


def names(*prompts: Prompt) -> list[str]:
    return file_names([(one,) for one in prompts])


def test_an_id_names_its_file_and_else_the_text_does() -> None:
    plain, text, tokens = names(prompt("12 + 30 = ", "sum"), prompt("12 + 30 = "), prompt((5, 17)))
    assert plain == "sum"
    assert re.fullmatch(r"12_\+_30_=_~[0-9a-f]{8}", text)
    assert re.fullmatch(r"tokens_5_17~[0-9a-f]{8}", tokens)


def test_names_stay_when_others_come_behind() -> None:
    first = [prompt("a"), prompt("B"), prompt("b")]
    assert names(*first, prompt("a", seed=1), prompt("c"))[:3] == names(*first)


def test_no_two_names_are_alike_in_whatever_case() -> None:
    found = names(prompt("a"), prompt("A"), prompt("a", seed=1), prompt("a", seed=2), prompt("x", "a"), prompt("a b"))
    assert len({name.casefold() for name in found}) == len(found)


def test_long_and_hostile_texts_make_short_names_without_folders() -> None:
    found = names(
        prompt("x" * 5000), prompt("../../etc/passwd"), prompt("a\0b\n/"), prompt("nul"), prompt("a" * 4999, "C")
    )
    for name in found:
        assert len(name) < 130
        assert re.fullmatch(r"[A-Za-z0-9_+=,~-]+", name), name
    assert found[3].startswith("nul~")


def test_a_batch_is_named_for_its_first_prompt_and_told_from_others() -> None:
    one, other = file_names([(prompt("p", "a"), prompt("p", "b")), (prompt("p", "a"), prompt("p", "c"))])
    assert re.fullmatch(r"a\+1~[0-9a-f]{8}", one)
    assert one != other


def test_a_baseline_belongs_to_its_ids_where_all_prompts_have_one() -> None:
    assert prompt_test([prompt("p", "a"), prompt("p", "b")], "p.jsonl") == TestId("p.jsonl", "a, b", None)
    assert prompt_test([prompt("p", "a"), prompt("p")], "p.jsonl") is None
    assert prompt_test([prompt("p")], None) is None
