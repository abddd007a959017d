"""The reference model's tokenizer: one token per printable ASCII character, and LLaDA's special tokens."""

from __future__ import annotations

import string
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

MASK, EOS, EOT, UNKNOWN = "<|mdm_mask|>", "<|endoftext|>", "<|eot_id|>", "<|unk|>"
SPECIAL = (MASK, EOS, EOT, UNKNOWN)
CHARACTERS = "\n" + "".join(chr(code) for code in range(32, 127))
SIZE = 104  # rounded up to a multiple of eight; the last ids are unused

assert set(string.printable) - set(CHARACTERS) == set("\t\r\x0b\x0c")


def build_tokenizer() -> Tokenizer:
    """Return the tokenizer; characters it does not know become `<|unk|>`."""
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *CHARACTERS))}
    tokenizer = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def write_tokenizer(path: Path) -> None:
    """Write `tokenizer.json`."""
    build_tokenizer().save(str(path), pretty=False)
