"""Prompts to be recorded: given one by one, or as a file of JSON objects, one a line."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from difftrace.core import strict_json
from difftrace.core.errors import FormatError, PromptsError
from difftrace.core.file_format import read_file
from difftrace.core.limits import MAX_PROMPTS_BYTES, MAX_TOKEN
from difftrace.core.text import printable

OPTIONS: Final = (
    "gen_length",
    "steps",
    "block_length",
    "temperature",
    "cfg_scale",
    "remasking",
    "logits_eos_inf",
    "confidence_eos_eot_inf",
    "seed",
    "noise",
    "tie_break",
)
"""Arguments of the sampler that a prompt may come with, as `difftrace.sampling.generate` names them."""

_SWITCHES: Final = ("logits_eos_inf", "confidence_eos_eot_inf")
_LONGEST_ID: Final = 1000


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        where: what messages call it, "prompts.jsonl line 3".
        content: the text, or the token ids.
        id: its name, where it was given one.
        options: the sampler's arguments that it comes with; the names are some of `OPTIONS`.
    """

    where: str
    content: str | tuple[int, ...]
    id: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def given_prompts(texts: Sequence[str]) -> list[Prompt]:
    """Return prompts of the command line.

    Raises:
        PromptsError: one is empty, or holds what is no text.
    """
    prompts, problems = [], []
    for number, text in enumerate(texts, 1):
        where = f"prompt {number}"
        problem = _text_problem(text)
        if problem is None:
            prompts.append(Prompt(where, text))
        else:
            problems.append(f"{where}: {problem}")
    if problems:
        raise PromptsError(problems)
    return prompts


def load_prompts(path: str | os.PathLike[str]) -> list[Prompt]:
    """Return the prompts in the file `path`: on each line an object such as
    `{"prompt": "12 + 30 = ", "id": "sum", "steps": 16}`.

    `prompt` is a text or a list of token ids, `id` a text or an integer, unlike all others of the file; all else is
    named in `OPTIONS`. Empty lines are passed over.

    Raises:
        FormatError: the file cannot be read, or is too large.
        PromptsError: lines are not such objects, or there are none.
    """
    data, source = read_file(path, MAX_PROMPTS_BYTES)
    if len(data) > MAX_PROMPTS_BYTES:
        raise FormatError(f"{source}: is larger than {MAX_PROMPTS_BYTES >> 20} MB; split it")
    name = printable(Path(path).name)
    prompts: list[Prompt] = []
    problems: list[str] = []
    lines: dict[str, int] = {}
    for number, line in _lines(data):
        where = f"{name} line {number}"
        try:
            prompt = _prompt(where, line)
        except FormatError as error:
            problems.append(f"{where}: {error}")
            continue
        first = number if prompt.id is None else lines.setdefault(prompt.id, number)
        if first != number:
            problems.append(f"{where}: has the id {printable(str(prompt.id))!r} of line {first}; give it another")
        prompts.append(prompt)
    if problems:
        raise PromptsError(problems)
    if not prompts:
        raise PromptsError([f'{source}: holds no prompt; write one JSON object a line, {{"prompt": "…"}}'])
    return prompts


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not empty with their numbers, from 1."""
    for number, line in enumerate(data.removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        if line.strip():
            yield number, line


def _prompt(where: str, line: bytes) -> Prompt:
    """Return the prompt on a line; raises FormatError, which does not name the line."""
    document = strict_json.loads(line)
    if not isinstance(document, dict):
        raise FormatError('is no JSON object; write {"prompt": "…"}, or {"prompt": [5, 17]} for token ids')
    unknown = sorted(set(document) - {"prompt", "id", *OPTIONS})
    if unknown:
        raise FormatError(
            f"has the key {printable(unknown[0])[:80]!r}, which there is not; there are prompt, id,"
            f" {', '.join(OPTIONS)}"
        )
    if (broken := strict_json.unprintable_string(document)) is not None:
        raise FormatError(f"{broken} holds half a surrogate pair, which is no text")
    options = {name: value for name, value in document.items() if name in OPTIONS}
    for name in _SWITCHES:
        if not isinstance(options.get(name, False), bool):
            raise FormatError(f"{name} must be true or false")
    return Prompt(where, _content(document), _id(document), options)


def _content(document: Mapping[str, Any]) -> str | tuple[int, ...]:
    if "prompt" not in document:
        raise FormatError("has no prompt")
    prompt = document["prompt"]
    if isinstance(prompt, str):
        if (problem := _text_problem(prompt)) is not None:
            raise FormatError(problem)
        return prompt
    if isinstance(prompt, list) and prompt and all(type(one) is int and 0 <= one <= MAX_TOKEN for one in prompt):
        return tuple(prompt)
    raise FormatError("prompt is neither a text nor a list of token ids")


def _id(document: Mapping[str, Any]) -> str | None:
    given = document.get("id")
    if given is None:
        return None
    name = str(given) if type(given) is int else given
    if not isinstance(name, str) or not name.strip() or len(name) > _LONGEST_ID:
        raise FormatError(f"id is no text of 1 to {_LONGEST_ID} characters, nor an integer")
    return name


def _text_problem(text: str) -> str | None:
    if not text:
        return "the prompt is empty"
    return None if strict_json.unprintable_string(text) is None else "the prompt is no text of Unicode"
