"""Received runs become baselines, unused baselines go, shards are joined: each on good and on bad input."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from difftrace.core.baseline import TestId, load, save
from difftrace.core.baseline_names import baseline_path, received_path
from difftrace.core.evidence import DIGEST_LANES, PROJECTIONS, REJECTED, Evidence
from difftrace.core.report import (
    BaselineFile,
    Checked,
    ReceivedFile,
    Report,
    RunSettings,
    SeenTest,
    Selection,
    TestOutcome,
    dump,
)
from difftrace.core.report import load as load_report
from difftrace.core.report import save as save_report
from difftrace.core.run import Run
from difftrace.core.schemas import violation
from difftrace.core.trajectory import Trajectory

Command = Callable[..., tuple[int, str, str]]


def run(token: int, environment: dict[str, Any] | None = None) -> Run:
    trajectory = Trajectory(prompt=[1], initial=[1, 9], steps=[0], positions=[1], tokens=[token], num_steps=1)
    return Run((trajectory,), environment=environment or {})


def sha256(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


class Project:
    """A folder of tests with baselines, and a results folder with the report of a run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.results = root / ".difftrace"
        self.checks: list[Checked] = []
        self.tests: list[SeenTest] = []
        self.selection = Selection((".",), (), ())
        self.because: tuple[str, ...] = ()

    def check(
        self,
        module: str = "tests/test_sum.py",
        test: str = "test_sum",
        name: str | None = None,
        *,
        status: Any = "diverged",
        divergence_class: str | None = "NEAR_TIE",
        before: int | None = 3,
        after: int = 4,
        environment: dict[str, Any] | None = None,
        outcome: TestOutcome = "failed",
    ) -> tuple[Path, Path]:
        """Add a check; return its baseline and its received file."""
        path = self.root / module
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        identity = TestId(path.name, test, name)
        target = baseline_path(path, identity)
        if before is not None:
            save(target, run(before, {"torch": "2.6.0"}).to_baseline(identity))
        relative = received_path(module, target.name)
        received = None
        if status in ("diverged", "without baseline"):
            observed = run(after, environment or {"torch": "2.7.0"}).to_baseline(identity)
            save(self.results / relative, observed)
            received = ReceivedFile(relative, observed.digest, sha256(self.results / relative))
        seen = target.relative_to(self.root).as_posix()
        digests = (None, None) if before is None else (load(target).digest, sha256(target))
        nodeid = f"{module}::{test}"
        self.checks.append(
            Checked(
                nodeid, module, test, name, module, 3, 0, status, divergence_class, None, None, (), None, None, (),
                None, (), "exact", "rerun", None, 0.0, BaselineFile(seen, True, *digests), seen, received, None,
            )
        )  # fmt: skip
        self.seen(module, test, outcome)
        return target, self.results / relative

    def seen(self, module: str, test: str, outcome: TestOutcome) -> None:
        """Add a collected test."""
        nodeid = f"{module}::{test}"
        if nodeid not in {one.nodeid for one in self.tests}:
            self.tests.append(SeenTest(nodeid, module, test, outcome))

    def write(self) -> Path:
        """Write the report; return its folder."""
        settings = RunSettings("verify", None, "exact", (), (), "rerun", None, None)
        report = Report(self.because, "..", ".", (settings,), self.selection, (), tuple(self.tests), tuple(self.checks))
        save_report(self.results / "report.json", report)
        return self.results


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


def tokens(path: Path) -> list[int]:
    found: list[int] = load(path).sequences[0].trajectory.tokens.tolist()
    return found


def test_received_runs_are_shown_by_class_and_promoted(difftrace: Command, project: Project) -> None:
    one, received = project.check()
    other, _ = project.check(test="test_b", divergence_class="DRIFT")
    new, _ = project.check(test="test_c", status="without baseline", divergence_class=None, before=None)
    status, out, _ = difftrace("accept", project.write(), "--yes", "--new")
    assert status == 0
    assert out.splitlines() == [
        "DRIFT: 1 check",
        "  environment.torch: 2.6.0 → 2.7.0",
        "    tests/test_sum.py::test_b",
        "NEAR_TIE: 1 check",
        "  environment.torch: 2.6.0 → 2.7.0",
        "    tests/test_sum.py::test_sum",
        "without baseline: 1 check",
        "    tests/test_sum.py::test_c",
        "3 baselines written",
    ]
    assert one.read_bytes() == received.read_bytes()
    assert tokens(other) == tokens(new) == [4]


def test_a_dry_run_writes_nothing(difftrace: Command, project: Project) -> None:
    target, _ = project.check()
    status, out, _ = difftrace("accept", project.write(), "--dry-run")
    assert (status, out.splitlines()[-1]) == (0, "nothing written")
    assert tokens(target) == [3]


def test_nothing_is_promoted_unasked(difftrace: Command, project: Project) -> None:
    target, _ = project.check()
    status, _, err = difftrace("accept", project.write())
    assert status == 2
    assert "give --yes or --dry-run" in err
    assert tokens(target) == [3]


def test_only_and_class_choose(difftrace: Command, project: Project) -> None:
    one, _ = project.check()
    other, _ = project.check(test="test_b", divergence_class="LOGIC")
    third, _ = project.check("tests/test_c.py", "test_d", divergence_class="LOGIC")
    results = project.write()
    assert difftrace("accept", results, "--yes", "--class", "near-tie")[0] == 0
    assert (tokens(one), tokens(other), tokens(third)) == ([4], [3], [3])
    assert difftrace("accept", results, "--yes", "--only", "tests/test_c.py")[0] == 0
    assert (tokens(other), tokens(third)) == ([3], [4])
    assert difftrace("accept", results, "--yes", "--only", "tests/test_sum.py::test_b")[0] == 0
    assert tokens(other) == [4]
    status, _, err = difftrace("accept", results, "--only", "tests/none.py")
    assert (status, "has no check of it" in err) == (2, True)
    assert difftrace("accept", results, "--class", "NONSENSE")[0] == 2


def test_only_names_parametrised_tests_and_folders_as_pytest_does(difftrace: Command, project: Project) -> None:
    cases = [project.check(test=f"test_sum[{case}]")[0] for case in "ab"]
    other, _ = project.check(test="test_sum_up")
    deep, _ = project.check("tests/deep/test_a.py", "test_a")
    results = project.write()
    assert difftrace("accept", results, "--yes", "--only", "tests/test_sum.py::test_sum")[0] == 0
    assert [tokens(path) for path in (*cases, other, deep)] == [[4], [4], [3], [3]]
    assert difftrace("accept", results, "--yes", "--only", "tests/deep/")[0] == 0
    assert [tokens(path) for path in (other, deep)] == [[3], [4]]


@pytest.mark.parametrize("given", ["cannot-tell", "CANNOT TELL", "near-tie,CANNOT_TELL"])
def test_class_takes_what_stands_for_a_class_that_cannot_be_told(
    difftrace: Command, project: Project, given: str
) -> None:
    untold, _ = project.check(divergence_class=None)
    other, _ = project.check(test="test_b", divergence_class="LOGIC")
    new, _ = project.check(test="test_c", status="without baseline", divergence_class=None, before=None)
    status, out, _ = difftrace("accept", project.write(), "--yes", "--new", "--class", given)
    assert (status, tokens(untold), tokens(other), new.exists()) == (0, [4], [3], False)
    assert out.startswith("CANNOT TELL: 1 check\n")


def test_a_report_can_be_accepted_in_parts(difftrace: Command, project: Project) -> None:
    one, _ = project.check()
    other, _ = project.check(test="test_b", divergence_class="LOGIC")
    new, _ = project.check(test="test_c", status="without baseline", divergence_class=None, before=None)
    results = project.write()
    assert difftrace("accept", results, "--yes", "--class", "NEAR_TIE")[0] == 0
    status, out, _ = difftrace("accept", results, "--yes", "--new")
    assert (status, tokens(one), tokens(other), tokens(new)) == (0, [4], [4], [4])
    assert "left: tests/test_sum.py::test_sum\n  accepted already: its baseline is this run\n" in out
    assert out.endswith("2 baselines written\n")
    status, out, _ = difftrace("accept", results, "--yes")
    assert (status, out.count("accepted already"), "written" in out) == (0, 3, False)


def test_a_run_without_baseline_is_promoted_only_where_that_is_asked_for(difftrace: Command, project: Project) -> None:
    known, _ = project.check()
    new, _ = project.check(test="test_c", status="without baseline", divergence_class=None, before=None)
    status, out, _ = difftrace("accept", project.write(), "--yes")
    assert (status, tokens(known), new.exists()) == (0, [4], False)
    assert "left: tests/test_sum.py::test_c\n  it has no baseline and ran once" in out
    assert out.endswith("1 baseline written\n")
    assert difftrace("accept", project.results, "--yes", "--new")[0] == 0
    assert tokens(new) == [4]


def change(project: Project, **values: Any) -> None:
    project.checks[0] = replace(project.checks[0], **values)


def damage_received(project: Project, target: Path, received: Path) -> None:
    received.write_bytes(received.read_bytes().replace(b'"2.7.0"', b'"2.8.0"'))


def remove_received(project: Project, target: Path, received: Path) -> None:
    received.unlink()


def link_received(project: Project, target: Path, received: Path) -> None:
    received.rename(project.root / "moved.json")
    received.symlink_to(project.root / "moved.json")


def change_baseline(project: Project, target: Path, received: Path) -> None:
    save(target, run(7).to_baseline(load(target).test))


def delete_baseline(project: Project, target: Path, received: Path) -> None:
    target.unlink()


def received_outside(project: Project, target: Path, received: Path) -> None:
    (project.root / "received").mkdir()
    shutil.copy(received, project.root / "received" / "x.json")
    found = project.checks[0].received
    assert found is not None
    change(project, received=replace(found, path="received/../../received/x.json"))


def of_another_test(project: Project, target: Path, received: Path) -> None:
    foreign = run(4).to_baseline(TestId("test_sum.py", "test_other", None))
    save(received, foreign)
    found = project.checks[0].received
    assert found is not None
    change(project, received=replace(found, sha256=sha256(received), digest=foreign.digest))


def target_elsewhere(project: Project, target: Path, received: Path) -> None:
    change(project, target="tests/__difftrace__/test_sum/other.json")


def uncollected(project: Project, target: Path, received: Path) -> None:
    project.tests[:] = [SeenTest("a.py::a", "a.py", "a", "passed")]


def link_folder(project: Project, target: Path, received: Path) -> None:
    folder = target.parent
    folder.rename(project.root / "away")
    folder.symlink_to(project.root / "away", target_is_directory=True)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (damage_received, "is not the file that the run wrote"),
        (remove_received, "cannot be read"),
        (link_received, "is a symbolic link"),
        (change_baseline, "its baseline is not the one any more"),
        (delete_baseline, "its baseline is not the one any more"),
        (received_outside, "is no path below a folder"),
        (of_another_test, "belongs to another test"),
        (target_elsewhere, "which is not where this test's lies"),
        (uncollected, "not among those that the report says were collected"),
        (link_folder, "is a symbolic link"),
    ],
)
def test_one_refused_file_keeps_all_from_being_written(
    difftrace: Command, project: Project, spoil: Callable[..., None], told: str
) -> None:
    target, received = project.check()
    good, _ = project.check("tests/test_good.py", "test_a")
    spoil(project, target, received)
    before = target.read_bytes() if target.exists() else None
    status, out, _ = difftrace("accept", project.write(), "--yes")
    assert status == 1
    assert told in " ".join(out.split())
    assert "refused: tests/test_sum.py::test_sum" in out
    assert (target.read_bytes() if target.exists() else None) == before
    assert tokens(good) == [3]


@pytest.mark.parametrize("module", ["../test_out.py", "/etc/test_out.py", "tests/test_gone.py"])
def test_a_module_outside_or_gone_is_refused(difftrace: Command, project: Project, module: str) -> None:
    project.check()
    change(project, module=module, nodeid=f"{module}::test_sum")
    project.tests[:] = [SeenTest(f"{module}::test_sum", module, "test_sum", "failed")]
    (project.root.parent / "test_out.py").touch()
    status, _, err = difftrace("accept", project.write(), "--yes")
    assert status == 2
    assert "--rootdir" in err


def test_a_baseline_of_a_newer_version_is_not_overwritten(difftrace: Command, project: Project) -> None:
    target, _ = project.check(status="diverged", divergence_class=None)
    other, _ = project.check(test="test_b")
    target.write_bytes(target.read_bytes().replace(b'"version": "', b'"version": "9', 1))
    check = project.checks[0]
    newer = BaselineFile(check.target, True, None, sha256(target))
    project.checks[0] = replace(check, status="unreadable", baseline=newer)
    before = (target.read_bytes(), other.read_bytes())
    status, out, _ = difftrace("accept", project.write(), "--yes")
    assert status == 1
    told = " ".join(line.strip() for line in out.splitlines())
    assert "refused: tests/test_sum.py::test_sum" in told
    assert "written by a newer pytest-difftrace" in told
    assert "so update it; until then its baseline is not overwritten" in told
    assert (target.read_bytes(), other.read_bytes()) == before


def test_a_run_that_does_not_repeat_itself_is_left(difftrace: Command, project: Project) -> None:
    target, _ = project.check(divergence_class="RUN_TO_RUN")
    status, out, _ = difftrace("accept", project.write(), "--yes")
    assert status == 0
    assert out.startswith("left: tests/test_sum.py::test_sum\n  it does not repeat itself")
    assert tokens(target) == [3]


def test_a_run_of_nan_is_left(difftrace: Command, project: Project) -> None:
    target, received = project.check(divergence_class="NON_FINITE")
    unknown = [[np.nan] * REJECTED]
    evidence = Evidence(
        top_tokens=[4], top_scores=[np.nan], runner_up_tokens=[5], runner_up_scores=[np.nan], confidences=[np.nan],
        candidates=[1], rejected_positions=[[-1] * REJECTED], rejected_tokens=[[-1] * REJECTED],
        rejected_confidences=unknown, ties=[0], non_finite=[7], logits_digests=[[1] * DIGEST_LANES],
        sketches=[[0.0] * PROJECTIONS], sketched=[9], noise_digests=[0],
    )  # fmt: skip
    identity = load(received).test
    observed = replace(run(4, {"torch": "2.7.0"}), evidences=(evidence,)).to_baseline(identity)
    save(received, observed)
    named = project.checks[0].received
    assert named is not None
    written = replace(named, digest=observed.digest, sha256=sha256(received))
    project.checks[0] = replace(project.checks[0], received=written)
    status, out, _ = difftrace("accept", project.write(), "--yes")
    assert status == 0
    assert out.startswith("left: tests/test_sum.py::test_sum\n  its model returned NaN or infinite logits")
    assert tokens(target) == [3]


def test_an_artifact_is_accepted_from_another_folder(
    difftrace: Command, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, _ = project.check()
    shutil.move(project.write(), tmp_path / "download")
    status, _, err = difftrace("accept", tmp_path / "download", "--yes")
    assert (status, "--rootdir" in err) == (2, True)
    assert difftrace("accept", tmp_path / "download", "--dry-run", "--rootdir", project.root)[0] == 0
    monkeypatch.chdir(project.root)
    assert difftrace("accept", tmp_path / "download", "--yes")[0] == 0
    assert tokens(target) == [4]


def test_accepting_as_json_says_what_was_written(difftrace: Command, project: Project) -> None:
    target, _ = project.check()
    project.check(test="test_b", divergence_class="RUN_TO_RUN")
    status, _, err = difftrace("accept", project.write(), "--json")
    assert (status, "--yes" in err, tokens(target)) == (2, True, [3])
    _, out, _ = difftrace("accept", project.results, "--json", "--dry-run")
    assert violation("acceptance", json.loads(out)) is None
    assert not json.loads(out)["written"]
    _, out, _ = difftrace("accept", project.results, "--json", "--yes")
    found = json.loads(out)
    assert found["written"]
    assert [one["target"] for one in found["accepted"]] == ["tests/__difftrace__/test_sum/test_sum.json"]
    assert [one["reason"][:24] for one in found["left"]] == ["it does not repeat itsel"]
    assert tokens(target) == [4]


@pytest.mark.parametrize("command", ["accept", "prune", "merge"])
def test_a_folder_without_report_is_no_results_folder(difftrace: Command, tmp_path: Path, command: str) -> None:
    more = ["-o", tmp_path / "merged.json"] if command == "merge" else []
    status, _, err = difftrace(command, tmp_path, *more)
    assert status == 2
    assert "holds no report.json, so it is no results folder: give the folder that a run of pytest wrote" in err


def test_what_is_no_report_cannot_be_accepted(difftrace: Command, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    assert difftrace("accept", tmp_path)[0] == 2


def older(*paths: Path) -> None:
    for path in paths:
        os.utime(path, ns=(0, 0))


def unused(project: Project, module: str, test: str, name: str | None = None, key: str | None = None) -> Path:
    """Write a baseline that no check of the run uses."""
    identity = TestId(Path(module).name, test, name)
    path = baseline_path(project.root / module, identity, key)
    save(path, run(5).to_baseline(identity))
    older(path)
    return path


def test_baselines_without_a_check_are_listed_then_deleted(difftrace: Command, project: Project) -> None:
    used, _ = project.check(status="verified", divergence_class="IDENTICAL", outcome="passed")
    gone_test = unused(project, "tests/test_sum.py", "test_gone")
    gone_check = unused(project, "tests/test_sum.py", "test_sum", "gone")
    gone_module = unused(project, "tests/test_old.py", "test_a")
    temporary = used.parent / ".difftrace-0123456789abcdef.tmp"
    temporary.touch()
    older(temporary)
    status, out, _ = difftrace("prune", project.write())
    assert status == 1
    assert out.splitlines() == [
        "unused  tests/__difftrace__/test_old/test_a.json: tests/test_old.py is gone",
        "unused  tests/__difftrace__/test_sum/test_gone.json: tests/test_sum.py has no test test_gone",
        "unused  tests/__difftrace__/test_sum/test_sum.gone.json: test_sum makes no check gone",
        "unused  tests/__difftrace__/test_sum/.difftrace-0123456789abcdef.tmp: left behind by an interrupted write",
        "1 in use, 4 unused, 0 kept",
    ]
    assert gone_test.exists()
    _, out, _ = difftrace("prune", project.results, "--json", "--delete")
    assert violation("prune", json.loads(out)) is None
    assert not any(path.exists() for path in (gone_test, gone_check, gone_module, temporary, gone_module.parent))
    assert used.exists()
    assert difftrace("prune", project.results)[0] == 0


def test_baselines_that_may_be_used_another_time_are_kept(difftrace: Command, project: Project) -> None:
    project.check(status="verified", divergence_class="IDENTICAL", outcome="passed")
    project.seen("tests/test_sum.py", "test_skipped", "skipped")
    project.seen("tests/test_sum.py", "test_failed", "failed")
    kept = [
        unused(project, "tests/test_sum.py", "test_skipped"),
        unused(project, "tests/test_sum.py", "test_failed", "late"),
        unused(project, "tests/test_sum.py", "test_sum", "gpu", key="cuda"),
        unused(project, "tests/test_uncollected.py", "test_a"),
        unused(project, "tests/test_sum.py", "test_damaged"),
        unused(project, "tests/test_sum.py", "test_newer"),
    ]
    (project.root / "tests/test_uncollected.py").touch()
    kept[4].write_text("{}")
    other_platform = unused(project, "tests/test_sum.py", "test_sum", key="cuda")
    results = project.write()
    later = (results / "report.json").stat().st_mtime_ns + 1_000_000_000
    os.utime(kept[5], ns=(later, later))
    status, out, _ = difftrace("prune", results, "--delete")
    assert status == 0
    assert out.splitlines()[-1] == "2 in use, 0 deleted, 6 kept"
    assert all(path.exists() for path in (*kept, other_platform))


def test_what_the_run_did_not_cover_is_left_alone(difftrace: Command, project: Project) -> None:
    project.check("a/test_a.py", status="verified", outcome="passed")
    other = unused(project, "b/test_b.py", "test_b")
    hidden = unused(project, "a/.venv/test_c.py", "test_c")
    project.selection = Selection(("a",), (), ())
    status, out, _ = difftrace("prune", project.write(), "--delete")
    assert (status, out) == (0, "1 in use, 0 deleted, 0 kept\n")
    assert other.exists()
    assert hidden.exists()


@pytest.mark.parametrize(
    ("selection", "because", "told"),
    [
        (Selection((".",), ("--last-failed",), ()), (), "--last-failed"),
        (Selection((".",), (), ("-k",)), (), "-k"),
        (Selection((".",), (), ()), ("the run was interrupted",), "the run was interrupted"),
    ],
)
def test_partial_and_incomplete_runs_prune_nothing(
    difftrace: Command, project: Project, selection: Selection, because: tuple[str, ...], told: str
) -> None:
    project.check(status="verified", outcome="passed")
    orphan = unused(project, "tests/test_sum.py", "test_gone")
    project.selection, project.because = selection, because
    status, out, err = difftrace("prune", project.write(), "--delete")
    assert (status, out) == (2, "")
    assert told in err
    assert orphan.exists()


def test_the_wrong_root_folder_prunes_nothing(difftrace: Command, project: Project, tmp_path: Path) -> None:
    project.check(status="verified", outcome="passed")
    elsewhere = Project(tmp_path / "other")
    victim = unused(elsewhere, "tests/test_mine.py", "test_a")
    status, _, err = difftrace("prune", project.write(), "--delete", "--rootdir", elsewhere.root)
    assert (status, "--rootdir" in err) == (2, True)
    assert victim.exists()


def test_shards_become_one_report_with_their_received_runs(difftrace: Command, tmp_path: Path) -> None:
    shards = [Project(tmp_path / "one"), Project(tmp_path / "two")]
    shards[0].check()
    shards[0].seen("tests/test_b.py", "test_b", "deselected")
    shards[1].check("tests/test_b.py", "test_b")
    shards[1].seen("tests/test_sum.py", "test_sum", "deselected")
    for shard in shards:
        shard.selection = Selection(("tests",), (), ("-k",))
    merged = tmp_path / "merged" / "report.json"
    status, out, _ = difftrace("merge", *(shard.write() for shard in shards), "-o", merged)
    assert (status, out) == (0, "2 reports merged: 2 checks, all tests of tests\n")
    report = load_report(merged)
    assert report.full
    assert [test.outcome for test in report.tests] == ["failed", "failed"]
    assert difftrace("accept", merged.parent, "--yes", "--only", "tests/test_b.py", "--rootdir", shards[1].root)[0] == 0


@pytest.mark.parametrize(
    ("reports", "output", "expected"),
    [
        (("root/one", "root/two"), "root/report.json", "."),
        (("root/one", "root/two"), "root/merged/all/report.json", "../.."),
        (("root/one", "other/two"), "root/merged/report.json", None),
        (("root/one", "root/two"), "elsewhere/report.json", None),
    ],
)
def test_the_root_folder_of_all_shards_is_that_of_the_merged_report(
    difftrace: Command, tmp_path: Path, reports: tuple[str, ...], output: str, expected: str | None
) -> None:
    project = Project(tmp_path / "root")
    project.check()
    for name in reports:
        shutil.copytree(project.write(), tmp_path / name)
    merged = tmp_path / output
    assert difftrace("merge", *(tmp_path / name for name in reports), "-o", merged)[0] == 0
    assert load_report(merged).rootdir == expected


@pytest.mark.parametrize(
    ("covers", "told"),
    [
        ((".",), "all tests"),
        (("tests/test_sum.py",), "all tests of tests/test_sum.py"),
        (tuple("abcd"), "all tests of 4 files and folders"),
    ],
)
def test_a_report_says_what_it_has_all_tests_of(
    difftrace: Command, project: Project, tmp_path: Path, covers: tuple[str, ...], told: str
) -> None:
    project.check(status="verified", outcome="passed")
    project.selection = Selection(covers, (), ())
    _, out, _ = difftrace("merge", project.write(), "-o", tmp_path / "m.json")
    assert out == f"1 report merged: 1 check, {told}\n"


def test_the_merged_report_takes_the_place_of_none_that_it_is_made_of(difftrace: Command, project: Project) -> None:
    project.check()
    report = project.write() / "report.json"
    before = report.read_bytes()
    status, _, err = difftrace("merge", project.results, "-o", report)
    assert (status, "is one of the reports to merge" in err, report.read_bytes()) == (2, True, before)


def test_shards_that_leave_a_test_out_stay_partial(difftrace: Command, tmp_path: Path) -> None:
    one, other = Project(tmp_path / "one"), Project(tmp_path / "two")
    for shard in (one, other):
        shard.check(status="verified", outcome="passed")
        shard.seen("tests/test_b.py", "test_b", "deselected")
    other.because = ("the run was interrupted",)
    status, out, _ = difftrace("merge", one.write(), other.write(), "-o", tmp_path / "m.json", "--json")
    found = json.loads(out)
    assert violation("merge", found) is None
    assert (status, found["full"], found["complete"]) == (0, False, False)
    assert found["duplicates"] == ["tests/test_sum.py::test_sum"]
    assert load_report(tmp_path / "m.json").partial_because == ("1 test deselected",)


def test_of_a_check_in_two_shards_the_failed_one_counts(difftrace: Command, tmp_path: Path) -> None:
    one, other = Project(tmp_path / "one"), Project(tmp_path / "two")
    one.check(status="verified", outcome="passed")
    other.check()
    for index, order in enumerate(((one, other), (other, one))):
        path = tmp_path / str(index) / "report.json"
        difftrace("merge", *(shard.write() for shard in order), "-o", path)
        report = load_report(path)
        assert [check.status for check in report.checks] == ["diverged"]
        assert report.tests[0].outcome == "failed"


def test_a_damaged_received_run_is_told_and_not_merged(difftrace: Command, project: Project, tmp_path: Path) -> None:
    _, received = project.check()
    received.write_text("{}")
    status, out, _ = difftrace("merge", project.write(), "-o", tmp_path / "m.json")
    assert status == 1
    assert out.startswith("received run lost: received/tests/test_sum.py/test_sum.json")
    assert load_report(tmp_path / "m.json").checks[0].received is None


def test_what_is_no_report_is_not_merged(difftrace: Command, project: Project, tmp_path: Path) -> None:
    project.check()
    bad = tmp_path / "bad.json"
    bad.write_bytes(dump(load_report(project.write() / "report.json"))[:-10])
    status, _, err = difftrace("merge", project.results, bad, "-o", tmp_path / "m.json")
    assert (status, "bad.json" in err) == (2, True)
    assert not (tmp_path / "m.json").exists()
