"""What a platform is called, and baselines that another platform recorded."""

from __future__ import annotations

import json

import pytest

CHECKED = """
KEY, TOKEN = 'cuda-sm90', 3
def test_a(difftrace): difftrace.check(Run((traj(TOKEN),), environment={'platform_key': KEY, 'torch': '2.13'}))
def test_b(difftrace): difftrace.check(Run((traj(TOKEN),), environment={'platform_key': KEY}))
"""
HERE = CHECKED.replace("cuda-sm90", "cpu")


def _recorded(document: bytes) -> object:
    return json.loads(document)["environment"]["platform_key"]


@pytest.mark.parametrize("ini", [False, True])
def test_the_key_can_be_given_and_names_files_and_recorded_environments(
    suite, run_pytest, pytester, baselines, ini: bool
):
    suite(CHECKED)
    pytester.makeini(f"[pytest]\ndifftrace_per_platform = true\ndifftrace_platform_key = {'lab-3_x.1' if ini else 'y'}")
    run_pytest("--difftrace-record", *([] if ini else ["--difftrace-platform-key=lab-3_x.1"])).assert_outcomes(passed=2)
    files = baselines()
    assert sorted(files) == [f"__difftrace__/test_x/test_{x}@lab-3_x.1.json" for x in "ab"]
    assert {_recorded(document) for document in files.values()} == {"lab-3_x.1"}
    environment = json.loads(files["__difftrace__/test_x/test_a@lab-3_x.1.json"])["environment"]
    assert environment["torch"] == "2.13"


def test_a_trajectory_without_an_environment_gets_the_key_too(suite, run_pytest, baselines):
    suite("def test_a(difftrace): difftrace.check(traj(3))\n")
    run_pytest("--difftrace-record", "--difftrace-platform-key=lab")
    [document] = baselines().values()
    assert json.loads(document)["environment"] == {"platform_key": "lab"}


@pytest.mark.parametrize("key", ["CUDA", "a b", "a/b", "../a", "a@b", "é", "a..b", ".a", "a.", "x" * 41, "a\n"])
def test_a_key_that_names_of_files_cannot_be_trusted_with_is_a_usage_error(suite, run_pytest, baselines, key: str):
    suite(CHECKED)
    result = run_pytest("--difftrace-record", f"--difftrace-platform-key={key}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: platform key *: it takes at most 40 lower-case letters, digits, '-', '_'*"])
    assert not baselines()


def test_keys_of_the_greatest_length_do_not_collide(suite, run_pytest, baselines):
    suite(CHECKED)
    for last in "ab":
        key = "x" * 39 + last
        run_pytest("--difftrace-record", f"--difftrace-platform-key={key}", "-o", "difftrace_per_platform=true")
    assert len(baselines()) == 4


def test_a_failure_says_which_platform_recorded_the_baseline_and_why_it_was_used(suite, run_pytest):
    suite(CHECKED)
    run_pytest("--difftrace-record")
    suite(HERE.replace(", 3", ", 4"))
    result = run_pytest("--difftrace-verify")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "  baseline: __difftrace__/test_x/test_a.json",
            "  recorded on cuda-sm90",
            "  this is cpu, which has no file of its own",
        ],
        consecutive=True,
    )
    result.stdout.no_fnmatch_line("*verified against*")
    # The plain run fails with the same words.
    run_pytest().stdout.fnmatch_lines(["  recorded on cuda-sm90"])


def test_a_failure_on_the_platform_that_recorded_says_nothing_of_platforms(suite, run_pytest):
    suite(CHECKED)
    run_pytest("--difftrace-record")
    suite(CHECKED.replace(", 3", ", 4"))
    run_pytest("--difftrace-verify").stdout.no_fnmatch_line("*recorded on*")


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_passing_checks_against_other_platforms_baselines_are_counted_at_the_end(suite, run_pytest, workers: list[str]):
    if workers:
        pytest.importorskip("xdist")
    suite(CHECKED)
    run_pytest("--difftrace-record")
    suite(HERE + "def test_c(difftrace): difftrace.check(traj(3))\n")
    run_pytest("--difftrace-record=missing").assert_outcomes(passed=3)
    result = run_pytest("--difftrace-verify", *workers)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        [
            "difftrace: 3 verified",
            "difftrace: 2 checks verified against baselines recorded on cuda-sm90 (shared files; this is cpu)",
        ]
    )
    run_pytest().stdout.no_fnmatch_line("*recorded on*")


def test_each_pair_of_platforms_has_a_line(suite, run_pytest):
    suite(CHECKED)
    run_pytest("--difftrace-record")
    run_pytest("--difftrace-record=all", "--difftrace-platform-key=lab", "-k", "test_b")
    suite(HERE)
    lines = run_pytest("--difftrace-verify").outlines
    assert [line for line in lines if "verified against" in line] == [
        "difftrace: 1 check verified against a baseline recorded on cuda-sm90 (shared files; this is cpu)",
        "difftrace: 1 check verified against a baseline recorded on lab (shared files; this is cpu)",
    ]


def test_a_platforms_own_file_that_came_from_elsewhere_is_told_apart(suite, run_pytest, pytester):
    suite(CHECKED)
    run_pytest("--difftrace-record", "-o", "difftrace_per_platform=true")
    for path in (pytester.path / "__difftrace__" / "test_x").iterdir():
        path.rename(path.with_name(path.name.replace("@cuda-sm90", "@cpu")))
    suite(HERE)
    run_pytest("--difftrace-verify").stdout.fnmatch_lines(
        ["difftrace: 2 checks verified against baselines recorded on cuda-sm90 (files of cpu; this is cpu)"]
    )
    suite(HERE.replace(", 3", ", 4"))
    run_pytest("--difftrace-verify").stdout.fnmatch_lines(
        ["  recorded on cuda-sm90", "  this is cpu, which has this file although it was recorded elsewhere"],
        consecutive=True,
    )


def test_the_command_that_records_repeats_what_the_command_line_said(suite, run_pytest):
    suite(CHECKED)
    result = run_pytest("--difftrace-platform-key=lab", "--difftrace-profile=cpu")
    result.stdout.fnmatch_lines(
        ["  pytest --difftrace-record --difftrace-profile=cpu --difftrace-platform-key=lab test_x.py::test_a"]
    )
