"""Text to token ids and back: one small interface over `tokenizers` and `transformers`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from difftrace.core.errors import ModelError

# Files a tokenizer is made of; those present are digested, by name and content.
_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


class Tokenizer(Protocol):
    """What the rest of the library needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, without adding special tokens."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, special tokens left out."""
        ...

    def piece(self, token: int) -> str:
        """Return the text of one id, special tokens shown by name."""
        ...

    def token_id(self, token: str) -> int | None:
        """Return the id of a token in the vocabulary, or None."""
        ...


class FastTokenizer:
    """A `tokenizer.json` through the `tokenizers` package, which loads in milliseconds."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer as Backend

        try:
            self._backend = Backend.from_file(str(path))
        except Exception as error:  # the package raises bare Exception
            raise ModelError(f"{path}: no readable tokenizer: {error}") from error

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, without adding special tokens."""
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, special tokens left out."""
        return str(self._backend.decode(list(ids), skip_special_tokens=True))

    def piece(self, token: int) -> str:
        """Return the text of one id, special tokens shown by name."""
        return str(self._backend.decode([token], skip_special_tokens=False))

    def token_id(self, token: str) -> int | None:
        """Return the id of a token in the vocabulary, or None."""
        found: int | None = self._backend.token_to_id(token)
        return found


class TransformersTokenizer:
    """Whatever `transformers.AutoTokenizer` makes of a folder, without remote code."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        try:
            self.backend: Any = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        except Exception as error:  # transformers raises many kinds; each means the same here
            raise ModelError(f"{folder}: transformers cannot load its tokenizer: {error}") from error

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, without adding special tokens."""
        return list(self.backend.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, special tokens left out."""
        return str(self.backend.decode(list(ids), skip_special_tokens=True))

    def piece(self, token: int) -> str:
        """Return the text of one id, special tokens shown by name."""
        return str(self.backend.decode([token], skip_special_tokens=False))

    def token_id(self, token: str) -> int | None:
        """Return the id of a token in the vocabulary, or None."""
        found: int | None = self.backend.get_vocab().get(token)
        return found


def load_tokenizer(folder: Path) -> Tokenizer | None:
    """Load the tokenizer of a model folder; None where it holds none (a bare checkpoint).

    A folder with `tokenizer.json` alone needs no transformers, which takes seconds to import.
    """
    if not any((folder / name).is_file() for name in _FILES):
        return None
    if (folder / "tokenizer.json").is_file() and not (folder / "tokenizer_config.json").is_file():
        return FastTokenizer(folder / "tokenizer.json")
    return TransformersTokenizer(folder)


def tokenizer_digest(folder: Path) -> str | None:
    """Return `sha256:` over the names and contents of a folder's tokenizer files; None where there are none."""
    present = [name for name in _FILES if (folder / name).is_file()]
    if not present:
        return None
    total = hashlib.sha256()
    for name in present:
        content = (folder / name).read_bytes()
        total.update(json.dumps([name, len(content)]).encode() + b"\n" + content)
    return f"sha256:{total.hexdigest()}"
