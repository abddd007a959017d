"""Verifying: equal runs pass, others fail with the first divergence, and nothing is ever written."""

from __future__ import annotations

import json

import pytest

CHECKED = "TOKENS = (3, 4)\ndef test_a(difftrace): difftrace.check(traj(*TOKENS))\n"


def test_equal_run_passes_and_is_counted(suite, run_pytest, baselines):
    suite(CHECKED)
    run_pytest("--difftrace-record")
    before = baselines()
    result = run_pytest("--difftrace-verify")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["difftrace: 1 verified"])
    assert baselines() == before


def test_checks_by_decisions_alone_are_counted_where_a_mode_is_asked_for(suite, evident, run_pytest):
    alone = "difftrace: 1 baseline was compared by decisions alone: whether the logits are the same cannot be told*"
    suite("def test_a(difftrace): difftrace.check(traj(3, 4))\n")
    run_pytest("--difftrace-record").stdout.no_fnmatch_line("*by decisions alone*")
    run_pytest("--difftrace-verify").stdout.fnmatch_lines(["difftrace: 1 verified", alone])
    run_pytest().stdout.no_fnmatch_line("*by decisions alone*")
    # Now the run has evidence, and its baseline none.
    evident("run(3, 4)")
    run_pytest("--difftrace-verify").stdout.fnmatch_lines(["difftrace: 1 verified", alone])
    run_pytest("--difftrace-record=all")
    run_pytest("--difftrace-verify").stdout.no_fnmatch_line("*by decisions alone*")


def test_missing_baseline_fails_with_the_command_that_records_it(suite, run_pytest, baselines, pytester):
    suite(
        """
class TestA:
    @pytest.mark.parametrize('p', ['x y'])
    def test_b(self, p, difftrace): difftrace.check(traj(3))
"""
    )
    result = run_pytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["difftrace: no baseline", "  at test_x.py:*"])
    [command] = [line.strip() for line in result.outlines if line.startswith("  pytest --difftrace-record")]
    assert command == 'pytest --difftrace-record "test_x.py::TestA::test_b[x y]"'
    assert not baselines()


def test_divergence_shows_step_position_and_tokens_but_no_frame_of_ours(suite, run_pytest, baselines):
    suite(CHECKED)
    run_pytest("--difftrace-record")
    before = baselines()
    suite(CHECKED.replace("(3, 4)", "(3, 5)"))
    result = run_pytest("--difftrace-verify")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "difftrace: run differs from its baseline at step 1, position 3",
            "  at test_x.py:12",
            "1 of 2 steps agreed before it (1 decision)",
            "  golden    commits token 4",
            "  observed  commits token 5",
            "  pytest --difftrace-record test_x.py::test_a",
            "difftrace: 1 diverged",
        ]
    )
    result.stdout.no_fnmatch_line("*pytest_difftrace*")
    assert baselines() == before


def test_list_of_failed_tests_has_one_line_each_even_on_ci(suite, run_pytest, monkeypatch):
    monkeypatch.setenv("CI", "true")
    suite(CHECKED)
    lines = run_pytest().outlines
    summary = lines[next(i for i, line in enumerate(lines) if "short test summary" in line) + 1 :]
    assert [line.split()[0] for line in summary if line and not line.startswith("=")] == ["FAILED"]


def test_policy_text_holds_where_only_decisions_differ(suite, run_pytest):
    body = (
        "TEXT, TOKENS = 'same', (3, 4)\ndef test_a(difftrace): difftrace.check(Run((traj(*TOKENS),), texts=(TEXT,)))\n"
    )
    suite(body)
    run_pytest("--difftrace-record")
    suite(body.replace("(3, 4)", "(3, 5)"))
    result = run_pytest("--difftrace-policy=text")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["difftrace: 1 CANNOT TELL (allowed by policy text)"])
    run_pytest().assert_outcomes(failed=1)
    suite(body.replace("same", "other"))
    result = run_pytest("--difftrace-policy=text")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["difftrace: *final text*", 'golden   "same"', 'observed "other"'])


def test_policy_text_compares_final_canvases_where_there_are_no_texts(suite, run_pytest, pytester):
    pytester.makeini("[pytest]\ndifftrace_policy = text")
    body = "def test_a(difftrace): difftrace.check({})\n"
    suite(body.format("traj(3, 4)"))
    run_pytest("--difftrace-record")
    suite(
        body.format(
            "Trajectory(prompt=[1, 2], initial=[1, 2, 99, 99], "
            "steps=[0, 1], positions=[3, 2], tokens=[4, 3], num_steps=2)"
        )
    )
    run_pytest().assert_outcomes(passed=1)
    suite(body.format("traj(3, 5)"))
    run_pytest().assert_outcomes(failed=1)


def test_batches_and_named_checks_have_a_baseline_each(suite, run_pytest, baselines):
    suite(
        """
def test_a(difftrace):
    difftrace.check([traj(3), traj(4)])
    difftrace.check(traj(5), name="second")
    difftrace.check((traj(6),), "third")
"""
    )
    run_pytest("--difftrace-record").stdout.fnmatch_lines(["difftrace: 3 new"])
    assert len(baselines()) == 3
    run_pytest("--difftrace-verify").stdout.fnmatch_lines(["difftrace: 3 verified"])


@pytest.mark.parametrize("names", ["None, None", "'a', 'a'"])
def test_two_checks_of_one_name_are_an_error(suite, run_pytest, baselines, names: str):
    suite(f"def test_a(difftrace):\n  for name in ({names}): difftrace.check(traj(3), name)\n")
    result = run_pytest("--difftrace-record")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E  *ValueError: *difftrace.check*name*", "test_x.py:*: ValueError"])
    assert not baselines()


@pytest.mark.parametrize("value", ["None", "[]", "'text'", "[1, 2]", "traj(3).to_bytes()"])
def test_anything_but_a_run_is_a_type_error(suite, run_pytest, value: str):
    suite(f"def test_a(difftrace): difftrace.check({value})\n")
    result = run_pytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E  *TypeError: difftrace.check takes a run*"])
    result.stdout.no_fnmatch_line("*pytest_difftrace*checks.py*")


def test_baseline_of_this_platform_wins_over_the_shared_one(suite, run_pytest, baselines, pytester):
    body = """
KEY, TOKEN = 'cuda-sm90', 3
def test_a(difftrace): difftrace.check(Run((traj(TOKEN),), environment={'platform_key': KEY}))
"""
    suite(body)
    run_pytest("--difftrace-record")
    suite(body.replace(", 3", ", 4").replace("cuda-sm90", "rocm-gfx942"))
    run_pytest("-o", "difftrace_per_platform=true", "--difftrace-record").stdout.fnmatch_lines(["difftrace: 1 new"])
    assert sorted(baselines()) == [
        "__difftrace__/test_x/test_a.json",
        "__difftrace__/test_x/test_a@rocm-gfx942.json",
    ]
    run_pytest("--difftrace-verify").assert_outcomes(passed=1)
    suite(body)
    run_pytest("--difftrace-verify").assert_outcomes(passed=1)
    suite(body.replace("cuda-sm90", "rocm-gfx942"))
    run_pytest("--difftrace-verify").assert_outcomes(failed=1)


def test_recording_rewrites_the_file_that_verifying_reads(suite, run_pytest, baselines):
    body = "TOKEN = 3\ndef test_a(difftrace): difftrace.check(traj(TOKEN))\n"
    suite(body)
    run_pytest("-o", "difftrace_per_platform=true", "--difftrace-record")
    suite(body.replace("3", "4"))
    run_pytest("--difftrace-record").assert_outcomes(passed=1)
    assert list(baselines()) == ["__difftrace__/test_x/test_a@cpu.json"]
    run_pytest("--difftrace-verify").assert_outcomes(passed=1)


def test_the_file_says_which_check_it_belongs_to(suite, run_pytest, baselines):
    suite("class TestA:\n  def test_b(self, difftrace): difftrace.check(traj(3), name='n')\n")
    run_pytest("--difftrace-record")
    [(path, data)] = baselines().items()
    assert path == "__difftrace__/test_x/TestA.test_b.n.json"
    assert json.loads(data)["test"] == {"module": "test_x.py", "id": "TestA::test_b", "name": "n"}


def test_colours_appear_only_where_they_are_asked_for(suite, run_pytest):
    suite(CHECKED)
    assert "\x1b[" not in run_pytest("--color=no").stdout.str()
    coloured = run_pytest("--color=yes", "--code-highlight=no").stdout.str()
    headline = "difftrace: no baseline"
    assert (headline if pytest.version_tuple < (8, 3) else f"\x1b[31m\x1b[1m{headline}\x1b[0m") in coloured


def test_junit_file_stays_plain_and_short_in_its_message(suite, run_pytest, pytester):
    suite(CHECKED)
    run_pytest("--color=yes", "--junitxml=out.xml")
    text = (pytester.path / "out.xml").read_text(encoding="utf-8")
    assert "\x1b" not in text
    assert "#x1B" not in text
    assert 'message="Failed: difftrace: no baseline"' in text


def test_command_names_the_model_given_on_the_command_line(suite, run_pytest):
    suite(CHECKED)
    result = run_pytest("--difftrace-model=some model")
    result.stdout.fnmatch_lines(['  pytest --difftrace-record "--difftrace-model=some model" test_x.py::test_a'])
