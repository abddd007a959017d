"""What the probes let a model denoise: prompts of equal length, and one that is longer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from difftrace.models import LoadedModel

# Questions of the kind the reference model knows; any tokenizer can read them.
_TEXTS: Final = ("12 + 30 = ", "47 + 25 = ", "63 + 18 = ", "85 + 14 = ")
_LONGER_TEXT: Final = "day after 2024-04-30: "

_LENGTH: Final = 10
_LONGER: Final = 18


@dataclass(frozen=True)
class ProbePrompts:
    """Token ids: `rows` are four different prompts of one length, `longer` one that makes them need padding."""

    rows: tuple[tuple[int, ...], ...]
    longer: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens of each row."""
        return len(self.rows[0])


def probe_prompts(loaded: LoadedModel) -> ProbePrompts:
    """Return short questions, or ids spread over the vocabulary for a model without a tokenizer."""
    if loaded.tokenizer is not None:
        encoded = [tuple(loaded.tokenizer.encode(text)) for text in _TEXTS]
        # A tokenizer may cut them into unequal numbers of pieces, but rows of one batch must be equally long.
        rows = tuple(ids[: min(map(len, encoded))] for ids in encoded)
        longer = tuple(loaded.tokenizer.encode(_LONGER_TEXT))
        if len(set(rows)) == len(rows) and len(longer) > len(rows[0]) > 0:
            return ProbePrompts(rows, longer)
    return ProbePrompts(tuple(_ids(loaded, _LENGTH, start) for start in range(4)), _ids(loaded, _LONGER, 4))


def _ids(loaded: LoadedModel, length: int, start: int) -> tuple[int, ...]:
    """Return `length` ids that mean nothing special to the model, another series for each `start`."""
    config = loaded.config
    special = {config.mask_token_id, config.eos_token_id, config.pad_token_id, config.eot_token_id}
    plain = [token for token in range(min(config.vocab_size, 50_000)) if token not in special]
    # A stride without a common divisor with most sizes walks through the whole vocabulary.
    return tuple(plain[(start * 7919 + index * 104_729) % len(plain)] for index in range(length))
