from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from difftrace.core.atomic import open_atomically, replace_quickly, write_all_atomically, write_atomically
from difftrace.core.errors import WriteError

posix = pytest.mark.skipif(os.name != "posix", reason="signals, modes and limits of POSIX")


def fail_with(code: int) -> NoReturn:
    raise OSError(code, os.strerror(code))


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    path = tmp_path / "golden.json"
    path.write_bytes(b"old")
    return path


def entries(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


def test_content_is_replaced_and_nothing_else_left(golden: Path) -> None:
    write_atomically(golden, b"new")
    assert golden.read_bytes() == b"new"
    assert entries(golden) == ["golden.json"]


def test_missing_folders_are_created(tmp_path: Path) -> None:
    path = tmp_path / "__difftrace__" / "test_a" / "test_b.json"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_the_longest_name_works(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250 + ".json")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


@posix
def test_the_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_atomically(tmp_path / "ours", b"")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "ours")}
    assert len(modes) == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fills_leaves_the_old_file_whole(golden: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: fail_with(code))
    with pytest.raises(WriteError) as caught:
        write_atomically(golden, b"new")
    assert str(golden) in str(caught.value)
    assert os.strerror(code) in str(caught.value)
    assert golden.read_bytes() == b"old"
    assert entries(golden) == ["golden.json"]


def test_the_message_says_what_to_do(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: fail_with(errno.ENOSPC))
    with pytest.raises(WriteError, match=r"nothing was changed\. To go on, free space on its disk and run"):
        write_atomically(golden, b"new")


@posix
def test_a_size_limit_met_halfway_leaves_the_old_file_whole(golden: Path) -> None:
    code = (
        "import resource, sys; from difftrace.core.atomic import write_atomically;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "write_atomically(sys.argv[1], bytes(100_000))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(golden)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"WriteError: {golden}: could not be written (File too large)" in done.stderr
    assert golden.read_bytes() == b"old"
    assert entries(golden) == ["golden.json"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_read_only_folder_leaves_the_old_file_whole(golden: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(Path, "open", lambda *_, **__: fail_with(code))
    with pytest.raises(WriteError, match="writable"):
        write_atomically(golden, b"new")
    monkeypatch.undo()
    assert golden.read_bytes() == b"old"
    assert entries(golden) == ["golden.json"]


def test_a_file_where_a_folder_should_be_is_named(golden: Path) -> None:
    with pytest.raises(WriteError, match="could not be written"):
        write_atomically(golden / "below.json", b"new")
    assert golden.read_bytes() == b"old"


def test_an_interruption_leaves_the_old_file_whole(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(golden, b"new")
    assert golden.read_bytes() == b"old"
    assert entries(golden) == ["golden.json"]


@posix
def test_a_kill_before_the_replacement_leaves_the_old_file_whole(golden: Path) -> None:
    code = (
        "import os, pathlib, signal, sys; from difftrace.core.atomic import write_atomically;"
        "pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL);"
        "write_atomically(sys.argv[1], b'new')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(golden)], check=False)
    assert done.returncode == -9
    assert golden.read_bytes() == b"old"
    write_atomically(golden, b"new")
    assert golden.read_bytes() == b"new"


def test_a_file_written_piece_by_piece_takes_its_place_at_the_end(golden: Path) -> None:
    with open_atomically(golden) as file:
        file.write(b"new")
        file.write(b"er")
        file.flush()
        assert golden.read_bytes() == b"old"
    assert golden.read_bytes() == b"newer"
    assert entries(golden) == ["golden.json"]


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt()])
def test_whatever_stops_the_pieces_leaves_the_old_file_and_is_raised(golden: Path, error: BaseException) -> None:
    def stop_half_way() -> None:
        with open_atomically(golden) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        stop_half_way()
    assert golden.read_bytes() == b"old"
    assert entries(golden) == ["golden.json"]


def test_a_disk_that_fails_between_the_pieces_is_a_write_error(golden: Path) -> None:
    def fail_half_way() -> None:
        with open_atomically(golden):
            fail_with(errno.ENOSPC)

    with pytest.raises(WriteError, match="free space on its disk"):
        fail_half_way()
    assert golden.read_bytes() == b"old"


def test_several_files_are_written_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tmp_path / "one", tmp_path / "new" / "other"
    one.write_bytes(b"old")
    write_all_atomically({one: b"1", other: b"2"})
    assert (one.read_bytes(), other.read_bytes()) == (b"1", b"2")
    blocked = tmp_path / "one" / "below"
    with pytest.raises(WriteError, match="below: could not be written"):
        write_all_atomically({other: b"3", blocked: b"4"})
    assert other.read_bytes() == b"2"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["new", "one", "other"]


def test_a_quick_replacement_is_whole_too(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    replace_quickly(path, b"1")
    replace_quickly(path, b"2")
    assert path.read_bytes() == b"2"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]
    with pytest.raises(WriteError, match="could not be written"):
        replace_quickly(path / "below", b"3")
