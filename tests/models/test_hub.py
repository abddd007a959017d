"""Models from the hub: one pinned commit, no code, no pickles, and a clear word when there is no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from difftrace.core.errors import ModelError
from difftrace.models import load_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "some-owner/some-model.v1"


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Record what is asked of the hub, and answer that there is no network."""
    asked: list[dict[str, Any]] = []

    def snapshot_download(name: str, **options: Any) -> str:
        asked.append({"name": name, **options})
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


@pytest.mark.parametrize("revision", [None, "main", "v1.0", COMMIT[:12], COMMIT.upper(), COMMIT + "0"])
def test_a_hub_model_needs_the_full_commit(downloads: list[dict[str, Any]], revision: str | None) -> None:
    with pytest.raises(ModelError, match="needs revision= with the full 40-hex commit") as raised:
        load_model(NAME, revision=revision)
    assert NAME in str(raised.value)
    assert downloads == []


def test_without_a_network_the_error_names_model_and_revision(downloads: list[dict[str, Any]]) -> None:
    with pytest.raises(ModelError, match=rf"{NAME} at revision {COMMIT}: .*no route to the hub"):
        load_model(NAME, revision=COMMIT)
    assert len(downloads) == 1


def test_neither_code_nor_pickles_are_asked_for(downloads: list[dict[str, Any]]) -> None:
    with pytest.raises(ModelError):
        load_model(NAME, revision=COMMIT)
    assert (downloads[0]["name"], downloads[0]["revision"]) == (NAME, COMMIT)
    patterns = downloads[0]["allow_patterns"]
    assert "*.safetensors" in patterns
    assert not any(pattern.endswith((".py", ".bin", ".pt", "*")) for pattern in patterns)


def test_a_downloaded_model_is_known_by_its_hub_name_and_commit(
    monkeypatch: pytest.MonkeyPatch,
    write_model: Callable[..., Path],
    tiny_tensors: dict[str, torch.Tensor],
) -> None:
    folder = write_model(tiny_tensors)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    loaded = load_model(NAME, revision=COMMIT, device="cpu")
    assert (loaded.identity.name, loaded.identity.revision) == (NAME, COMMIT)


@pytest.mark.parametrize("name", ["absent", "./absent", "a/b/c", "owner/", "../model", "owner/na me"])
def test_what_is_neither_folder_nor_hub_id_is_said_to_be_so(
    downloads: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="no such folder"):
        load_model(name, revision=COMMIT)
    assert downloads == []


def test_a_missing_folder_given_as_a_path_is_never_looked_up_on_the_hub(
    downloads: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="no such folder"):
        load_model(Path("owner/model"), revision=COMMIT)
    assert downloads == []
