"""Files of prompts: what a line may be, and that every line that may not is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from difftrace.core.errors import FormatError, PromptsError
from difftrace.core.prompts import OPTIONS, Prompt, given_prompts, load_prompts


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "p.jsonl"


def problems_of(file: Path) -> tuple[str, ...]:
    with pytest.raises(PromptsError) as raised:
        load_prompts(file)
    return raised.value.problems


def test_a_line_is_a_text_or_token_ids_with_an_id_and_options(file: Path) -> None:
    file.write_bytes(
        b'\xef\xbb\xbf{"prompt": "caf\xc3\xa9", "id": "a"}\r\n\n  \n{"prompt": [0, 5], "id": 7, "cfg_scale": 1.5}\n'
        b'{"prompt": " "}'
    )
    assert load_prompts(file) == [
        Prompt("p.jsonl line 1", "café", "a"),
        Prompt("p.jsonl line 4", (0, 5), "7", {"cfg_scale": 1.5}),
        Prompt("p.jsonl line 5", " "),
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "is not complete JSON"),
        (b"[]", "is no JSON object"),
        (b"[5, 17]", 'is no JSON object; write {"prompt": "…"}, or {"prompt": [5, 17]} for token ids'),
        (b"{}", "has no prompt"),
        (b'{"prompt": ""}', "the prompt is empty"),
        (b'{"prompt": []}', "neither a text nor a list of token ids"),
        (b'{"prompt": [1, -1]}', "neither a text nor a list of token ids"),
        (b'{"prompt": [true]}', "neither a text nor a list of token ids"),
        (b'{"prompt": 5}', "neither a text nor a list of token ids"),
        (b'{"prompt": "a", "prompt": "b"}', "gives the key 'prompt' twice"),
        (b'{"prompt": "a", "id": ""}', "id is no text of 1 to 1000 characters"),
        (b'{"prompt": "a", "id": [1]}', "id is no text of 1 to 1000 characters"),
        (b'{"prompt": "a", "gen-length": 8}', "has the key 'gen-length', which there is not; there are prompt, id,"),
        (b'{"prompt": "a", "logits_eos_inf": 1}', "logits_eos_inf must be true or false"),
        (b'{"prompt": "\\ud800"}', "$.prompt holds half a surrogate pair"),
        (b'{"prompt": "\xff"}', "is not UTF-8 text"),
        (b'{"prompt": "a", "temperature": NaN}', "holds NaN, which is not JSON"),
    ],
)
def test_a_line_that_is_no_prompt_is_named_with_its_number(file: Path, line: bytes, says: str) -> None:
    file.write_bytes(b'{"prompt": "fine"}\n' + line + b'\n{"prompt": "fine too"}\n{"prompt": 1}\n')
    first, last = problems_of(file)
    assert first.startswith("p.jsonl line 2: ")
    assert says in first
    assert last.startswith("p.jsonl line 4: ")


def test_an_id_given_twice_names_both_lines(file: Path) -> None:
    file.write_text('{"prompt": "a", "id": 7}\n{"prompt": "b", "id": "7"}\n')
    assert problems_of(file) == ("p.jsonl line 2: has the id '7' of line 1; give it another",)


def test_a_file_without_prompts_is_no_success(file: Path) -> None:
    file.write_text("\n \n")
    [problem] = problems_of(file)
    assert problem.startswith(f"{file}: holds no prompt")


def test_a_file_that_is_not_there_is_told(file: Path) -> None:
    with pytest.raises(FormatError, match="cannot be read"):
        load_prompts(file)


def test_prompts_of_the_command_line_are_numbered() -> None:
    assert given_prompts(["a", "b"]) == [Prompt("prompt 1", "a"), Prompt("prompt 2", "b")]
    with pytest.raises(PromptsError) as raised:
        given_prompts(["a", "", "\udcff"])
    assert raised.value.problems == ("prompt 2: the prompt is empty", "prompt 3: the prompt is no text of Unicode")
    assert str(raised.value) == "prompt 2: the prompt is empty (and 1 more)"


def test_every_option_can_come_with_a_prompt(file: Path) -> None:
    file.write_text(json.dumps({"prompt": "a", **dict.fromkeys(OPTIONS, False)}))
    assert set(load_prompts(file)[0].options) == set(OPTIONS)
