"""Recording: every test runs twice, and only what came out the same both times is written."""

from __future__ import annotations

import json

import pytest

CHECKED = "TOKEN = 3\ndef test_a(difftrace): difftrace.check(traj(TOKEN))\n"


def test_recording_again_changes_no_byte_and_says_so(suite, run_pytest, baselines):
    suite(
        """
def test_a(difftrace): difftrace.check(traj(3))
def test_b(difftrace):
    difftrace.check(traj(4))
    difftrace.check(traj(5), "two")
"""
    )
    run_pytest("--difftrace-record").stdout.fnmatch_lines(["difftrace: 3 new"])
    before = baselines()
    for scope in ("", "=missing", "=all"):
        run_pytest(f"--difftrace-record{scope}").stdout.fnmatch_lines(["difftrace: 3 unchanged"])
        assert baselines() == before


def test_unchanged_new_and_changed_are_counted_apart(suite, run_pytest, baselines):
    body = "def test_{}(difftrace): difftrace.check(traj({}))\n"
    suite("".join(body.format(name, 3) for name in "abcd"))
    run_pytest("--difftrace-record")
    suite("".join(body.format(name, 4 if name == "d" else 3) for name in "abcde"))
    result = run_pytest("--difftrace-record")
    result.stdout.fnmatch_lines(["difftrace: 3 unchanged, 1 new, 1 changed"])
    assert len(baselines()) == 5
    run_pytest("--difftrace-verify").assert_outcomes(passed=5)


def test_missing_writes_absent_files_only(suite, run_pytest, baselines):
    suite(CHECKED)
    run_pytest("--difftrace-record")
    before = baselines()
    suite(CHECKED.replace("3", "4") + "def test_b(difftrace): difftrace.check(traj(5))\n")
    result = run_pytest("--difftrace-record=missing")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["difftrace: run differs from its baseline*", "difftrace: 1 new, 1 diverged"])
    assert baselines().items() > before.items()
    assert len(baselines()) == 2


def test_equal_decisions_elsewhere_leave_the_file_alone_unless_all_is_asked_for(suite, run_pytest, baselines):
    body = "TORCH = '2.6'\ndef test_a(difftrace): difftrace.check(Run((traj(3),), environment={'torch': TORCH}))\n"
    suite(body)
    run_pytest("--difftrace-record")
    before = baselines()
    suite(body.replace("2.6", "2.7"))
    run_pytest("--difftrace-record").stdout.fnmatch_lines(["difftrace: 1 unchanged"])
    assert baselines() == before
    run_pytest("--difftrace-record=all").stdout.fnmatch_lines(["difftrace: 1 changed"])
    [data] = baselines().values()
    assert json.loads(data)["environment"] == {"torch": "2.7"}


def test_each_run_gets_fresh_function_fixtures_and_keeps_wider_ones(suite, run_pytest, pytester):
    suite(
        """
def log(line):
    with Path("log").open("a") as file: file.write(line + "\\n")
@pytest.fixture(scope="session")
def session(): log("session up"); yield; log("session down")
@pytest.fixture(scope="module")
def module(): log("module up"); yield; log("module down")
@pytest.fixture
def function(module, session): log("function up"); yield; log("function down")
class TestA:
    @pytest.fixture(scope="class")
    def wide(self): log("class up"); yield; log("class down")
    def setup_method(self): self.seen = 0
    def test_a(self, function, wide, difftrace, tmp_path):
        assert not hasattr(self, "mark") and not list(tmp_path.iterdir())
        self.mark = 1
        (tmp_path / "file").touch()
        log("test")
        difftrace.check(traj(3))
def test_b(function, difftrace): difftrace.check(traj(3))
"""
    )
    run_pytest("--difftrace-record").assert_outcomes(passed=2)
    first = ["class up", "function up", "test", "function down", "function up", "test", "function down", "class down"]
    lines = (pytester.path / "log").read_text(encoding="utf-8").split("\n")[:-1]
    second = ["function up", "function down"] * 2
    assert [line for line in lines if line.split()[0] in ("class", "function", "test")] == [*first, *second]
    assert lines.count("module up") == lines.count("session up") == 1
    assert lines[-2:] == ["module down", "session down"]


def test_tests_whose_baselines_hold_run_once(suite, run_pytest, pytester):
    suite(
        """
def test_a(difftrace):
    with Path("log").open("a") as file: file.write("x")
    difftrace.check(traj(3))
"""
    )
    run_pytest("--difftrace-record")
    run_pytest("--difftrace-record")
    assert (pytester.path / "log").read_text(encoding="utf-8") == "xxx"


def test_tests_without_checks_run_once(run_pytest, pytester):
    pytester.makepyfile(
        """
        from pathlib import Path
        def test_plain():
            with Path("log").open("a") as file: file.write("x")
        def test_unused(difftrace):
            with Path("log").open("a") as file: file.write("y")
        """
    )
    run_pytest("--difftrace-record").assert_outcomes(passed=2)
    assert (pytester.path / "log").read_text(encoding="utf-8") == "xy"


def test_what_does_not_reproduce_is_refused_showing_where_the_runs_part(suite, run_pytest, baselines):
    suite(
        """
runs = []
def test_a(difftrace):
    runs.append(1)
    difftrace.check(traj(3, 4), "stable")
    difftrace.check(traj(3, len(runs)), "unstable")
"""
    )
    result = run_pytest("--difftrace-record")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "difftrace: not recorded: two runs of this test differ at step 1, position 3",
            "  at test_x.py:16",
            "  run 1  commits token 1",
            "  run 2  commits token 2",
            "difftrace: 1 not recorded (test failed), 1 not reproducible",
        ]
    )
    assert not baselines()


def test_a_golden_that_the_second_run_breaks_stays_as_it_is(suite, run_pytest, baselines):
    body = "runs = []\ndef test_a(difftrace):\n  runs.append(1)\n  difftrace.check(traj({}))\n"
    suite(body.format(3))
    run_pytest("--difftrace-record")
    before = baselines()
    suite(body.format("3 + len(runs)"))
    run_pytest("--difftrace-record").assert_outcomes(failed=1)
    assert baselines() == before


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ("assert not runs[1:]", "the test passed in its first run and failed in its second"),
        ("if runs[1:]: pytest.skip('no')", "the test passed in its first run and was skipped in its second"),
        ("if runs[1:]: return", "the test's checks were one without a name in its first run and none in its second"),
    ],
)
def test_a_test_that_cannot_be_repeated_is_named(suite, run_pytest, baselines, second: str, reason: str):
    suite(
        f"""
runs = []
def test_a(difftrace):
    runs.append(1)
    {second}
    difftrace.check(traj(3))
"""
    )
    result = run_pytest("--difftrace-record")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [f"difftrace: not recorded: {reason}", "  at test_x.py:16", "difftrace: 1 not recorded (cannot be repeated)"]
    )
    assert not baselines()


def test_a_fixture_that_cannot_be_set_up_again_is_told(suite, run_pytest, baselines):
    suite(
        """
runs = []
@pytest.fixture
def once():
    runs.append(1)
    assert not runs[1:]
def test_a(once, difftrace): difftrace.check(traj(3))
def test_b(difftrace): difftrace.check(traj(3))
"""
    )
    result = run_pytest("--difftrace-record")
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(["difftrace: not recorded: the test passed in its first run and failed in its second"])
    assert list(baselines()) == ["__difftrace__/test_x/test_b.json"]


def test_a_fixture_that_cannot_be_torn_down_is_told(suite, run_pytest, baselines):
    suite(
        """
runs = []
@pytest.fixture
def once():
    yield
    runs.append(1)
    assert runs[1:], "torn too early"
def test_a(once, difftrace): difftrace.check(traj(3))
def test_b(difftrace): difftrace.check(traj(3))
"""
    )
    result = run_pytest("--difftrace-record")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["difftrace: not recorded: the teardown after its first run failed (*"])
    assert list(baselines()) == ["__difftrace__/test_x/test_b.json"]


def test_a_failing_test_records_nothing(suite, run_pytest, baselines):
    suite("def test_a(difftrace):\n  difftrace.check(traj(3))\n  assert False\n")
    result = run_pytest("--difftrace-record")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["difftrace: 1 not recorded (test failed)"])
    assert not baselines()


@pytest.mark.parametrize("ending", ["pytest.skip('x')", "pytest.xfail('x')"])
def test_skipped_and_xfailed_tests_record_nothing(suite, run_pytest, baselines, ending: str):
    suite(f"def test_a(difftrace):\n  difftrace.check(traj(3))\n  {ending}\n")
    result = run_pytest("--difftrace-record")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["difftrace: 1 not recorded (test skipped)"])
    assert not baselines()


def test_fixture_fetched_in_passing_cannot_record_and_says_what_to_do(suite, run_pytest, baselines):
    body = "def test_a({}): request.getfixturevalue('difftrace').check(traj(3))\n"
    suite(body.format("request"))
    result = run_pytest("--difftrace-record")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["Name difftrace among the test's arguments."])
    assert not baselines()
    suite(body.format("request, difftrace"))
    run_pytest("--difftrace-record").assert_outcomes(passed=1)
    suite(body.format("request"))
    run_pytest("--difftrace-record").assert_outcomes(passed=1)


def test_unittest_methods_cannot_record_and_say_so(suite, run_pytest, baselines):
    suite(
        """
import unittest
class TestA(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def _take(self, difftrace): self.difftrace = difftrace
    def test_a(self): self.difftrace.check(traj(3))
"""
    )
    result = run_pytest("--difftrace-record")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["difftrace: not recorded: only a plain test function can be run twice"])
    assert not baselines()


def test_check_in_a_teardown_cannot_record_and_says_so(suite, run_pytest, baselines):
    suite("@pytest.fixture\ndef late(difftrace):\n  yield\n  difftrace.check(traj(3))\ndef test_a(late): pass\n")
    result = run_pytest("--difftrace-record")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["difftrace: not recorded: the check came after the test function had ended*"])
    assert not baselines()


def test_check_in_a_fixtures_setup_is_recorded(suite, run_pytest, baselines):
    suite("@pytest.fixture\ndef early(difftrace): difftrace.check(traj(3))\ndef test_a(early): pass\n")
    run_pytest("--difftrace-record").stdout.fnmatch_lines(["difftrace: 1 new"])
    run_pytest("--difftrace-verify").stdout.fnmatch_lines(["difftrace: 1 verified"])


def test_output_and_properties_are_reported_once(suite, run_pytest, pytester):
    suite(
        """
def test_a(difftrace, record_property):
    print("printed")
    record_property("key", "value")
    difftrace.check(traj(3))
    record_property("late", "value")
"""
    )
    result = run_pytest("--difftrace-record", "-rP", "--junitxml=out.xml", "-o", "junit_family=legacy")
    assert result.outlines.count("printed") == 1
    assert (pytester.path / "out.xml").read_text(encoding="utf-8").count('name="key"') == 1


def test_hooks_see_one_test_with_three_reports(suite, run_pytest, pytester):
    pytester.makeconftest(
        """
        def pytest_runtest_logstart(nodeid): print("\\nstart", nodeid)
        def pytest_runtest_logreport(report): print("\\nreport", report.when, report.outcome)
        def pytest_runtest_logfinish(nodeid): print("\\nfinish", nodeid)
        """
    )
    suite(CHECKED)
    result = run_pytest("--difftrace-record", "-s")
    told = [line for line in result.outlines if line.split()[:1] and line.split()[0] in ("start", "report", "finish")]
    assert told == [
        "start test_x.py::test_a",
        "report setup passed",
        "report call passed",
        "report teardown passed",
        "finish test_x.py::test_a",
    ]


def test_setup_show_and_setup_only_still_work(suite, run_pytest, baselines):
    suite(CHECKED)
    run_pytest("--difftrace-record", "--setup-only").stdout.fnmatch_lines(["*test_x.py::test_a*"])
    assert not baselines()
    run_pytest("--difftrace-record", "--setup-show").assert_outcomes(passed=1)
    assert len(baselines()) == 1


def test_stopping_at_the_first_failure_still_tears_everything_down(suite, run_pytest, pytester):
    suite(
        """
@pytest.fixture(scope="module")
def module():
    yield
    Path("down").touch()
runs = []
def test_a(module, difftrace):
    runs.append(1)
    difftrace.check(traj(len(runs)))
def test_b(module): pass
"""
    )
    run_pytest("--difftrace-record", "-x").assert_outcomes(failed=1)
    assert (pytester.path / "down").exists()


def test_parametrised_wider_fixtures_are_set_up_once_for_each_parameter(suite, run_pytest, pytester, baselines):
    suite(
        """
@pytest.fixture(scope="module", params=[3, 4])
def token(request):
    with Path("log").open("a") as file: file.write(str(request.param))
    return request.param
def test_a(token, difftrace): difftrace.check(traj(token))
def test_b(token, difftrace): difftrace.check(traj(token))
"""
    )
    run_pytest("--difftrace-record").assert_outcomes(passed=4)
    assert (pytester.path / "log").read_text(encoding="utf-8") == "34"
    assert len(baselines()) == 4
