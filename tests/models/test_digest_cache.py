"""A big checkpoint is read once; after that its files' identity answers, and never for other content."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from difftrace.core.cache_folder import cache_folder
from difftrace.core.schemas import violation
from difftrace.models import digest_cache, load_model
from difftrace.models.digest_cache import remembered_digest
from difftrace.models.weights import Checkpoint, open_checkpoint

PLANTED = "sha256:" + "5" * 64


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("DIFFTRACE_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour after the files were written."""
    now = time.time_ns()
    monkeypatch.setattr(digest_cache.time, "time_ns", lambda: now + 3_600_000_000_000)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"a": torch.zeros(1 << 22), "b": torch.ones(1 << 12)}, folder / "model.safetensors")
    return open_checkpoint(folder)


def _file(checkpoint: Checkpoint) -> Path:
    return checkpoint.tensors["a"].file


def _entry(cache: Path) -> Path:
    (entry,) = cache.rglob("*.json")
    return entry


def _plant(cache: Path) -> None:
    """Change the remembered digest, so that an answer shows where it came from."""
    document = json.loads(_entry(cache).read_text())
    _entry(cache).write_text(json.dumps(document | {"digest": PLANTED}))


@pytest.mark.usefixtures("later")
def test_the_second_time_nothing_is_read(cache: Path, checkpoint: Checkpoint) -> None:
    assert remembered_digest(checkpoint) == checkpoint.digest()
    assert violation("weights_digest", json.loads(_entry(cache).read_text())) is None
    _plant(cache)
    assert remembered_digest(checkpoint) == PLANTED
    assert checkpoint.digest() != PLANTED


def _rewrite_in_place(file: Path) -> None:
    before = file.stat()
    with file.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\x01")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replace(file: Path) -> None:
    other = file.with_suffix(".new")
    other.write_bytes(file.read_bytes())
    other.replace(file)


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("change", [os.utime, _rewrite_in_place, _replace])
def test_a_changed_file_is_read_again_and_its_entry_replaced(
    cache: Path, checkpoint: Checkpoint, change: Callable[[Path], None]
) -> None:
    remembered_digest(checkpoint)
    _plant(cache)
    change(_file(checkpoint))
    assert remembered_digest(checkpoint) == checkpoint.digest()
    assert json.loads(_entry(cache).read_text())["digest"] == checkpoint.digest()


def test_a_file_written_just_now_is_neither_remembered_nor_looked_up(
    cache: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = _file(checkpoint).stat().st_ctime_ns
    monkeypatch.setattr(digest_cache.time, "time_ns", lambda: newest + 1_900_000_000)
    assert remembered_digest(checkpoint) == checkpoint.digest()
    assert not cache.exists()
    monkeypatch.setattr(digest_cache.time, "time_ns", lambda: newest + 2_100_000_000)
    remembered_digest(checkpoint)
    _plant(cache)
    assert remembered_digest(checkpoint) == PLANTED
    monkeypatch.setattr(digest_cache.time, "time_ns", lambda: newest + 1_900_000_000)
    assert remembered_digest(checkpoint) == checkpoint.digest()


@pytest.mark.usefixtures("later")
def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    cache: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed_meanwhile(self: Checkpoint) -> str:
        _replace(_file(self))
        return PLANTED

    monkeypatch.setattr(Checkpoint, "digest", changed_meanwhile)
    assert remembered_digest(checkpoint) == PLANTED
    assert not cache.exists()


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"\xff\xfe", b"null", b'{"digest": "sha256:0"}', b"[" * 100_000, b'{"digest": 1, "digest": 2}'],
)
def test_a_damaged_cache_is_computed_anew_without_a_word(cache: Path, checkpoint: Checkpoint, damage: bytes) -> None:
    remembered_digest(checkpoint)
    whole = _entry(cache).read_bytes()
    _entry(cache).write_bytes(damage)
    assert remembered_digest(checkpoint) == checkpoint.digest()
    assert _entry(cache).read_bytes() == whole


@pytest.mark.usefixtures("later")
def test_a_digest_that_is_none_is_not_believed(cache: Path, checkpoint: Checkpoint) -> None:
    remembered_digest(checkpoint)
    document = json.loads(_entry(cache).read_text())
    _entry(cache).write_text(json.dumps(document | {"digest": "sha256:short"}))
    assert remembered_digest(checkpoint) == checkpoint.digest()


@pytest.mark.usefixtures("later")
def test_a_cache_that_cannot_be_written_or_read_costs_nothing_else(cache: Path, checkpoint: Checkpoint) -> None:
    cache.write_text("a file where the folder should be")
    assert remembered_digest(checkpoint) == checkpoint.digest()
    cache.unlink()
    remembered_digest(checkpoint)
    entry = _entry(cache)
    entry.unlink()
    entry.mkdir()
    assert remembered_digest(checkpoint) == checkpoint.digest()


@pytest.mark.usefixtures("later")
def test_a_small_checkpoint_is_simply_read(cache: Path, tmp_path: Path) -> None:
    save_file({"a": torch.ones(3)}, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    assert remembered_digest(checkpoint) == checkpoint.digest()
    assert not cache.exists()


@pytest.mark.usefixtures("later")
def test_a_link_and_its_target_share_an_entry(cache: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "model.safetensors").symlink_to(_file(checkpoint))
    remembered_digest(checkpoint)
    _plant(cache)
    assert remembered_digest(open_checkpoint(tmp_path / "link")) == PLANTED


@pytest.mark.usefixtures("cache")
def test_a_loaded_model_s_identity_asks_the_cache(conformance_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("difftrace.models.loading.remembered_digest", lambda checkpoint: PLANTED)
    assert load_model(conformance_folder, device="cpu").identity.weights == PLANTED


def test_the_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == Path(os.environ["DIFFTRACE_CACHE_DIR"])
    monkeypatch.setenv("DIFFTRACE_CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "difftrace"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache_folder() == tmp_path / ".cache" / "difftrace"


def test_without_a_home_there_is_no_cache_and_no_error(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("DIFFTRACE_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert cache_folder() is None
    assert remembered_digest(checkpoint) == checkpoint.digest()
