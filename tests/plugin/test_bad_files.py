"""Files that are broken and disks that refuse: one clear message, the old baseline whole, nothing half written."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from pathlib import Path

import pytest

CHECKED = "TOKEN = 3\ndef test_a(difftrace): difftrace.check(traj(TOKEN))\n"


@pytest.fixture
def recorded(suite, run_pytest, pytester) -> Path:
    """A suite with one recorded baseline."""
    suite(CHECKED)
    run_pytest("--difftrace-record").assert_outcomes(passed=1)
    path: Path = pytester.path / "__difftrace__" / "test_x" / "test_a.json"
    return path


def flipped(data: bytes) -> bytes:
    document = json.loads(data)
    payload = document["sequences"][0]["decisions"]
    document["sequences"][0]["decisions"] = ("B" if payload[0] == "A" else "A") + payload[1:]
    return json.dumps(document).encode()


def with_wrong_digest(data: bytes) -> bytes:
    document = json.loads(data)
    document["digest"] = "sha256:" + "0" * 64
    return json.dumps(document).encode()


BREAKAGES = {
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "random": lambda data: bytes(range(256)),
    "flipped byte": flipped,
    "wrong digest": with_wrong_digest,
    "escape codes": lambda data: b'{"format": "\x1b[31m"}',
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_baseline_fails_in_one_line_and_is_left_alone(recorded, run_pytest, breakage: str):
    broken = BREAKAGES[breakage](recorded.read_bytes())
    recorded.write_bytes(broken)
    for flag in ("--difftrace-verify", "--difftrace-record=missing"):
        result = run_pytest(flag)
        result.assert_outcomes(failed=1)
        lines = result.outlines
        start = next(index for index, line in enumerate(lines) if line.startswith("difftrace: /"))
        assert "test_a.json: " in lines[start]
        assert lines[start + 1 : start + 5] == [
            "  at test_x.py:12",
            "",
            "To record it anew:",
            "  pytest --difftrace-record test_x.py::test_a",
        ]
        assert "\x1b" not in result.stdout.str()
        assert recorded.read_bytes() == broken


def test_a_broken_baseline_is_recorded_anew_on_request(recorded, run_pytest):
    before = recorded.read_bytes()
    recorded.write_bytes(before[:50])
    run_pytest("--difftrace-record").stdout.fnmatch_lines(["difftrace: 1 changed"])
    assert recorded.read_bytes() == before


@pytest.mark.parametrize("scope", ["missing", "changed", "all"])
def test_a_baseline_of_a_newer_version_is_never_overwritten(recorded, run_pytest, scope: str):
    document = json.loads(recorded.read_bytes()) | {"version": "999.0"}
    recorded.write_text(json.dumps(document), encoding="utf-8")
    before = recorded.read_bytes()
    result = run_pytest(f"--difftrace-record={scope}")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["difftrace: *test_a.json: *999.0*newer*"])
    assert recorded.read_bytes() == before


def test_for_a_baseline_of_a_newer_version_the_session_advises_to_update_alone(recorded, suite, run_pytest):
    suite(CHECKED + "def test_b(difftrace): difftrace.check(traj(TOKEN))\n")
    document = json.loads(recorded.read_bytes()) | {"version": "999.0"}
    recorded.write_text(json.dumps(document), encoding="utf-8")
    result = run_pytest("--difftrace-verify")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "Update pytest-difftrace to check it.",
            "difftrace: to update: pytest-difftrace, since 1 baseline was written by a newer one",
            "difftrace: to record: pytest --difftrace-record test_x.py::test_b",
        ]
    )
    result.stdout.no_fnmatch_line("difftrace: to accept:*")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_file_that_cannot_be_written_fails_its_test_and_keeps_the_old_one(
    recorded, suite, run_pytest, monkeypatch, code: int
):
    before = recorded.read_bytes()
    suite(CHECKED.replace("3", "4") + "def test_b(difftrace): pass\n")

    def refuse(*arguments: object, **keywords: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync" if code == errno.ENOSPC else "os.replace", refuse)
        patch.setattr("pathlib.Path.replace", refuse)
        result = run_pytest("--difftrace-record")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(
        [f"difftrace: *test_a.json: *{os.strerror(code)}*", "difftrace: 1 not recorded (could not be written)"]
    )
    assert recorded.read_bytes() == before
    assert list(recorded.parent.iterdir()) == [recorded]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_fails_its_test(recorded, suite, run_pytest):
    suite(CHECKED.replace("3", "4"))
    recorded.parent.chmod(0o555)
    try:
        run_pytest("--difftrace-record").assert_outcomes(failed=1)
    finally:
        recorded.parent.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_kill_during_recording_leaves_the_old_baseline_whole(recorded, suite, pytester, run_pytest):
    before = recorded.read_bytes()
    suite(CHECKED.replace("3", "4"))
    pytester.makeconftest(
        """
        import os, pathlib, signal
        def die(*arguments, **keywords): os.kill(os.getpid(), signal.SIGKILL)
        os.replace = pathlib.Path.replace = die
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--difftrace-record")
    assert result.ret == -signal.SIGKILL
    assert recorded.read_bytes() == before
    (pytester.path / "conftest.py").write_text("", encoding="utf-8")
    run_pytest("--difftrace-record").stdout.fnmatch_lines(["difftrace: 1 changed"])


def test_what_json_cannot_hold_is_refused_before_anything_is_written(suite, run_pytest, baselines):
    suite("def test_a(difftrace): difftrace.check(Run((traj(3),), environment={'x': float('nan')}))\n")
    result = run_pytest("--difftrace-record")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["difftrace: *test_a.json: *"])
    assert not baselines()
