"""What ran: the identity of a model that somebody else loaded, and of a loop that somebody else wrote."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

import torch

from difftrace.capture.adapter import Adapter
from difftrace.capture.captured import Captured
from difftrace.core.recording import JsonScalar, ModelIdentity, SamplerIdentity
from difftrace.models import LoadedModel
from difftrace.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class Subject:
    """What is recorded.

    Attributes:
        target: the object whose calls are seen.
        loaded: this package's model around it, None for any other.
    """

    target: Any
    loaded: LoadedModel | None = None

    @classmethod
    def of(cls, target: Any) -> Subject:
        """Take a model, or what `difftrace.models.load_model` returned."""
        return cls(target.model, target) if isinstance(target, LoadedModel) else cls(target)

    @property
    def tokenizer(self) -> Tokenizer | None:
        """What reads its token ids, None where that is not known."""
        return None if self.loaded is None else self.loaded.tokenizer

    def identity(self, mask_id: int | None) -> ModelIdentity:
        """Return which model it is; digests are those of this package's models, and unknown of others'."""
        if self.loaded is not None:
            return self.loaded.identity
        config = getattr(self.target, "config", None)
        vocabulary = getattr(config, "vocab_size", None)
        return ModelIdentity(
            name=self._name(config),
            revision=_text(getattr(config, "_commit_hash", None)),
            weights=None,
            config=None,
            tokenizer=None,
            vocab_size=vocabulary if isinstance(vocabulary, int) and vocabulary > 0 else None,
            mask_token_id=mask_id,
        )

    def placement(self) -> tuple[torch.device | None, torch.dtype | None]:
        """Return device and dtype of its first parameter, None without one."""
        if isinstance(self.target, torch.nn.Module):
            for parameter in self.target.parameters():
                return parameter.device, parameter.dtype
        return None, None

    def _name(self, config: Any) -> str:
        given = _text(getattr(config, "_name_or_path", None))
        # A hub id as it is; of a folder its name alone, since where it lies is nobody's business.
        if given and given.count("/") == 1 and not given.startswith((".", "/", "~")):
            return given
        return (PurePath(given).name if given else "") or type(self.target).__name__


def sampler_identity(adapter: Adapter, arguments: Mapping[str, JsonScalar], captured: Captured) -> SamplerIdentity:
    """Return the loop as a baseline names it: its arguments, and what of its runs is not verified."""
    unverified = sum(map(len, captured.unverified))
    known: dict[str, JsonScalar] = {"unverified_positions": unverified} if unverified else {}
    return SamplerIdentity.of_captured(adapter.name, adapter.version, {**arguments, **known})


def source_digest(file: Path | None) -> str | None:
    """Return the digest of the file that the loop is in; None where there is no such file."""
    try:
        if file is None:
            return None
        state = file.stat()
        return _digest_of(file, state.st_size, state.st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=64)
def _digest_of(file: Path, size: int, changed: int) -> str:
    """Return the digest of a file as long as it is of `size` and was `changed` then: engines' are long."""
    return f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
