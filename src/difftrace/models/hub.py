"""Model folders from the Hugging Face hub, at one commit."""

from __future__ import annotations

import re
from pathlib import Path

from difftrace.core.errors import ModelError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


def is_hub_id(name: str) -> bool:
    """Whether `name` reads as `owner/model`."""
    return _HUB_ID.fullmatch(name) is not None


def is_commit(revision: str | None) -> bool:
    """Whether `revision` is a full commit hash; branches and tags move."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def snapshot(name: str, revision: str) -> Path:
    """Return the local folder of `name` at `revision`, fetching what is not cached (never pickles or code).

    Raises ModelError where it cannot be had, for instance offline and not cached.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(_WANTED)))
    except Exception as error:  # network, cache, authentication and validation errors share no base class
        raise ModelError(f"{name} at revision {revision}: not to be had from the hub or its cache: {error}") from error
