"""Baselines that one job recorded and another puts in place: checked first, told as old and new."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from difftrace.core.baseline import load
from difftrace.core.errors import DiffTraceError
from difftrace.core.report_files import open_report
from difftrace.core.side_logits import open_beside
from pytest_difftrace.github.__main__ import main
from pytest_difftrace.github.promotion import promoted
from pytest_difftrace.github.pull_request import LIMIT, pull_request_body
from pytest_difftrace.github.recorded import copy_recorded

SUITE = """
from pathlib import Path
import numpy as np
from difftrace import Trajectory
from difftrace.core.logits_codec import Lossless
from difftrace.core.logits_layout import LogitsLayout
from difftrace.core.logits_reference import RecordedLogits
from difftrace.core.logits_writer import save_logits
from difftrace.core.run import Run

def traj(token):
    return Trajectory(prompt=[1, 2], initial=[1, 2, 99], steps=[0], positions=[2], tokens=[token], num_steps=1)

def logged(made, file):
    values = np.full((1, 1, 3, 10), made.tokens[0], '<f4').view('<u4')
    layout = LogitsLayout('float32', 1, 1, 10, (3,))
    return Run((made,), logits=RecordedLogits(file, save_logits(file, layout, Lossless(), [values])))

def test_a(difftrace, tmp_path): difftrace.check(logged(traj({token}), tmp_path / "made.logits"))
def test_b(difftrace): difftrace.check(traj(7))
"""
BASELINE = "__difftrace__/test_x/test_a.json"
LOGITS = "__difftrace__/test_x/test_a.logits"


def record(folder: Path, token: int) -> Path:
    """Record the suite in `folder` and return its results folder, with the baselines that were written."""
    (folder / "test_x.py").write_text(SUITE.format(token=token), encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider -p no:xdist\n", encoding="utf-8")
    record_in(folder)
    results = folder / ".difftrace"
    copy_recorded(open_report(results), results, folder)
    return results


def record_in(folder: Path, *arguments: str, **variables: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "PYTEST_"))}
    words = [sys.executable, "-m", "pytest", "--difftrace-record", *arguments]
    subprocess.run(words, cwd=folder, env=environment | variables, check=True, capture_output=True)


@pytest.fixture(scope="module")
def two_recordings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A checkout with a baseline, the results of recording all of it, and those of recording it changed."""
    base = tmp_path_factory.mktemp("recordings")
    for name in ("first", "second"):
        (base / name).mkdir()
    first = record(base / "first", 4)
    shutil.copytree(base / "first", base / "checkout", ignore=shutil.ignore_patterns(".difftrace"))
    shutil.copytree(base / "first/__difftrace__", base / "second/__difftrace__")
    return base / "checkout", first, record(base / "second", 5)


@pytest.fixture
def checkout(two_recordings, tmp_path) -> Path:
    return Path(shutil.copytree(two_recordings[0], tmp_path / "checkout"))


@pytest.fixture
def downloaded(two_recordings, tmp_path) -> Path:
    return Path(shutil.copytree(two_recordings[2], tmp_path / "downloaded"))


def test_changed_baselines_come_to_their_places_and_the_text_says_from_what_to_what(checkout, downloaded):
    before = load(checkout / BASELINE)
    proposals = promoted(downloaded, checkout)
    after = load(checkout / BASELINE)
    assert [one.check.nodeid for one in proposals] == ["test_x.py::test_a"]
    assert before.digest != after.digest == load(downloaded / "recorded" / BASELINE).digest
    body = pull_request_body(proposals)
    assert body.startswith("1 baseline recorded anew.")
    for digest in (before.digest, after.digest):
        assert digest.removeprefix("sha256:")[:12] in body
    assert "step 0, position 2" in body


def test_logits_are_handed_on_with_the_baseline_that_refers_to_them(checkout, downloaded):
    before = (checkout / LOGITS).read_bytes()
    promoted(downloaded, checkout)
    reference = load(checkout / BASELINE).logits
    assert reference is not None
    assert open_beside(checkout / BASELINE, reference) is not None
    assert (checkout / LOGITS).read_bytes() == (downloaded / "recorded" / LOGITS).read_bytes() != before


def test_a_recording_below_a_root_folder_of_its_own_is_put_there(two_recordings, tmp_path):
    """The workspace has the tests, and their settings, in a folder; the results folder is beside it."""
    shutil.copytree(two_recordings[0], tmp_path / "workspace/sub")
    shutil.rmtree(tmp_path / "workspace/sub/__difftrace__")
    shutil.copytree(tmp_path / "workspace", tmp_path / "checkout")
    workspace = tmp_path / "workspace"
    record_in(
        workspace, "sub", "--difftrace-results=.difftrace", GITHUB_ACTIONS="true", GITHUB_WORKSPACE=str(workspace)
    )
    report = open_report(workspace / ".difftrace")
    assert report.report.rootdir == "../sub"
    assert copy_recorded(report, workspace / ".difftrace", workspace) == 2
    downloaded = shutil.copytree(workspace / ".difftrace", tmp_path / "downloaded")
    assert len(promoted(downloaded, tmp_path / "checkout")) == 2
    written = tmp_path / "checkout/sub" / BASELINE
    assert written.read_bytes() == (workspace / "sub" / BASELINE).read_bytes()
    (downloaded / "recorded/rootdir.txt").write_text("../workspace/sub\n", encoding="utf-8")
    with pytest.raises(DiffTraceError, match="is no path below a folder"):
        promoted(downloaded, tmp_path / "checkout")


def test_what_is_left_of_an_earlier_recording_is_not_handed_on(two_recordings, tmp_path):
    workspace = shutil.copytree(two_recordings[0], tmp_path / "workspace")
    results = shutil.copytree(two_recordings[1], workspace / ".difftrace")
    (results / "recorded/rootdir.txt").write_text("elsewhere\n", encoding="utf-8")
    (results / "recorded/old.json").touch()
    copy_recorded(open_report(results), results, workspace)
    assert sorted(path.name for path in (results / "recorded").rglob("*.*")) == [
        "test_a.json",
        "test_a.logits",
        "test_b.json",
    ]


def test_new_baselines_are_put_where_there_were_none(two_recordings, checkout):
    shutil.rmtree(checkout / "__difftrace__")
    proposals = promoted(two_recordings[1], checkout)
    assert len(proposals) == 2
    assert load(checkout / BASELINE).test is not None
    assert pull_request_body(proposals).count("| new | –") == 2
    assert pull_request_body([]) == ""


def test_the_text_keeps_to_what_a_pull_request_takes(checkout, downloaded):
    [one] = promoted(downloaded, checkout)
    body = pull_request_body([one] * 400)
    assert LIMIT // 2 < len(body) <= LIMIT
    rows = body.count("\n| <code>")
    assert f"…and {400 - rows} more baselines." in body
    assert "…and 380 more changed baselines without details here." in body
    wordy = replace(one, check=replace(one.check, reason="because " * 2000))
    assert len(pull_request_body([wordy] * 20)) <= LIMIT
    assert "…and 17 more changed baselines" in pull_request_body([wordy] * 20)


def escape_from_root(checkout: Path, downloaded: Path) -> None:
    text = (downloaded / "report.json").read_text(encoding="utf-8")
    (downloaded / "report.json").write_text(text.replace(f'"target": "{BASELINE}"', '"target": "evil.json"'), "utf-8")
    shutil.copy(downloaded / "recorded" / BASELINE, downloaded / "recorded/evil.json")


def damage_file(checkout: Path, downloaded: Path) -> None:
    file = downloaded / "recorded" / BASELINE
    file.write_bytes(file.read_bytes().replace(b'"tokens"', b'"tokenz"').replace(b'"decisions"', b'"decisionz"'))


def swap_tests(checkout: Path, downloaded: Path) -> None:
    shutil.copy(checkout / "__difftrace__/test_x/test_b.json", downloaded / "recorded" / BASELINE)


def change_meanwhile(checkout: Path, downloaded: Path) -> None:
    with (checkout / BASELINE).open("a", encoding="utf-8") as file:
        file.write("\n")


def link_target(checkout: Path, downloaded: Path) -> None:
    (checkout / "workflow.json").write_bytes((checkout / BASELINE).read_bytes())
    (checkout / BASELINE).unlink()
    (checkout / BASELINE).symlink_to(checkout / "workflow.json")


def swap_logits(checkout: Path, downloaded: Path) -> None:
    shutil.copy(checkout / LOGITS, downloaded / "recorded" / LOGITS)


def lose_file(checkout: Path, downloaded: Path) -> None:
    (downloaded / "recorded" / BASELINE).unlink()


@pytest.mark.parametrize(
    "tamper", [escape_from_root, damage_file, swap_tests, change_meanwhile, link_target, lose_file, swap_logits]
)
def test_nothing_is_written_where_something_is_not_as_the_report_says(
    checkout, downloaded, tamper: Callable[[Path, Path], None], capsys
):
    tamper(checkout, downloaded)
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
    with pytest.raises(DiffTraceError):
        promoted(downloaded, checkout)
    assert {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file()} == before
    assert main(["promote", str(downloaded), "--rootdir", str(checkout)]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("::error title=DiffTrace::")
    assert told.out == ""  # which a workflow keeps as the text of a pull request


def test_the_command_prints_the_text_of_the_pull_request(checkout, downloaded, capsys):
    assert main(["promote", str(downloaded), "--rootdir", str(checkout)]) == 0
    assert capsys.readouterr().out.startswith("1 baseline recorded anew.")
    assert main(["promote"]) == 2
    assert main(["demote", "x"]) == 2
