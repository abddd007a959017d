"""Options and ini options: what they accept, what they refuse, and what the header says."""

from __future__ import annotations

import pytest

from difftrace.core import policies
from pytest_difftrace import options

CHECKED = "def test_a(difftrace): difftrace.check(traj(3))\n"


def test_bare_record_flag_takes_no_path(suite, run_pytest, baselines, pytester):
    suite(CHECKED)
    pytester.mkdir("tests")
    (pytester.path / "test_x.py").rename(pytester.path / "tests" / "test_x.py")
    run_pytest("--difftrace-record", "tests/").assert_outcomes(passed=1)
    assert list(baselines()) == ["tests/__difftrace__/test_x/test_a.json"]


@pytest.mark.parametrize("scope", ["missing", "changed", "all"])
def test_scopes_are_accepted(suite, run_pytest, scope: str):
    suite(CHECKED)
    result = run_pytest(f"--difftrace-record={scope}")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"difftrace: mode record ({scope}), policy exact, baselines in __difftrace__*"])


def test_unknown_scope_is_a_usage_error_naming_the_scopes(suite, run_pytest, baselines):
    suite(CHECKED)
    result = run_pytest("--difftrace-record=sometimes")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --difftrace-record=sometimes: it takes *missing|changed|all*"])
    assert not baselines()


def test_unknown_scope_in_the_ini_file_is_a_usage_error_naming_the_scopes(suite, run_pytest, pytester, baselines):
    suite(CHECKED)
    pytester.makeini("[pytest]\naddopts = --difftrace-record=sometimes")
    result = run_pytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--difftrace-record=all*'sometimes'*"])
    assert not baselines()


def test_flag_in_addopts_records(suite, run_pytest, pytester, baselines):
    suite(CHECKED)
    pytester.makeini("[pytest]\naddopts = --difftrace-record=missing")
    run_pytest("test_x.py").assert_outcomes(passed=1)
    assert len(baselines()) == 1


def test_recording_and_verifying_at_once_is_a_usage_error(suite, run_pytest, baselines):
    suite(CHECKED)
    result = run_pytest("--difftrace-record", "--difftrace-verify")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --difftrace-record and --difftrace-verify exclude each other*"])
    assert not baselines()


@pytest.mark.parametrize(
    ("option", "allowed"),
    [
        ("difftrace_mode = record", "off or verify"),
        ("difftrace_policy = near", "exact, near-tie, tokens or text"),
    ],
)
def test_unknown_ini_values_are_usage_errors(suite, run_pytest, pytester, option: str, allowed: str):
    suite(CHECKED)
    pytester.makeini(f"[pytest]\n{option}")
    result = run_pytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: ini option difftrace_*: it takes {allowed}"])


def test_unknown_policy_is_a_usage_error(suite, run_pytest):
    suite(CHECKED)
    assert run_pytest("--difftrace-policy=near").ret == pytest.ExitCode.USAGE_ERROR


def test_policies_are_those_of_the_library():
    assert options.POLICIES == policies.POLICIES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--difftrace-fail-on=NEAR_TIE,NEARTIE"], "*no class of divergence 'NEARTIE': use some of INVALID, INPUT, *"),
        (["--difftrace-allow=sometimes"], "*no class of divergence 'sometimes': use some of INVALID, INPUT, *"),
        (["-o", "difftrace_allow=sometimes"], "difftrace_fail_on, difftrace_allow: *'sometimes': use some of *"),
        (["--difftrace-allow=DRIFT", "--difftrace-fail-on=drift"], "*DRIFT cannot both fail and be allowed"),
        (["--difftrace-allow=INVALID"], "*INVALID cannot be allowed*"),
    ],
)
def test_what_is_no_class_of_divergence_is_a_usage_error(suite, run_pytest, arguments: list[str], message: str):
    suite(CHECKED)
    result = run_pytest(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}"])


def test_the_header_names_the_exceptions(suite, run_pytest):
    suite(CHECKED)
    result = run_pytest("--difftrace-record", "--difftrace-fail-on=drift,near-tie", "--difftrace-allow=weights")
    result.stdout.fnmatch_lines(
        ["difftrace: mode record (changed), policy exact (fail on DRIFT, NEAR_TIE; allow WEIGHTS), baselines in *"]
    )


def test_without_a_flag_there_is_neither_header_nor_summary(suite, run_pytest):
    suite(CHECKED)
    run_pytest("--difftrace-record")
    result = run_pytest()
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("difftrace:*")


def test_suites_without_checks_hear_nothing_even_with_a_flag(run_pytest, pytester):
    pytester.makepyfile("def test_plain(): pass")
    result = run_pytest("--difftrace-verify")
    result.stdout.fnmatch_lines(["difftrace: mode verify, policy exact*"])
    ours = [line for line in result.outlines if line.startswith("difftrace:") and "hash seed" not in line]
    assert len(ours) == 1


def test_mode_off_checks_nothing_and_says_so(suite, run_pytest, pytester, baselines):
    suite(CHECKED)
    pytester.makeini("[pytest]\ndifftrace_mode = off")
    result = run_pytest()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["difftrace: 1 check skipped (difftrace_mode = off)"])
    assert not baselines()


def test_verify_flag_overrides_mode_off(suite, run_pytest, pytester):
    suite(CHECKED)
    pytester.makeini("[pytest]\ndifftrace_mode = off")
    result = run_pytest("--difftrace-verify")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["difftrace: 1 without baseline"])


def test_strict_marker_and_config_modes_know_the_plugin(suite, run_pytest, pytester):
    suite("@pytest.mark.difftrace(device='cpu')\n" + CHECKED)
    pytester.makeini("[pytest]\ndifftrace_policy = text\ndifftrace_per_platform = true")
    run_pytest("--strict-markers", "--strict-config", "--difftrace-record").assert_outcomes(passed=1)


def test_help_shows_the_options(run_pytest):
    result = run_pytest("--help")
    result.stdout.fnmatch_lines(
        ["*--difftrace-record=missing*", "*--difftrace-policy=*", "*--difftrace-bisect*", "*difftrace_per_platform*"]
    )


def test_a_model_of_the_hub_is_asked_for_with_its_commit(pytester, run_pytest, suite):
    suite(
        """
from pytest_difftrace.marker import requested_model
from pytest_difftrace.session import SESSION

def test_a(request):
    asked = requested_model(request.node, request.config.stash[SESSION].settings)
    assert (asked.model, asked.revision) == ("owner/model", "0123456789abcdef0123456789abcdef01234567")

@pytest.mark.difftrace(model="other/model")
def test_b(request):
    asked = requested_model(request.node, request.config.stash[SESSION].settings)
    assert (asked.model, asked.revision) == ("other/model", None)
"""
    )
    result = run_pytest("--difftrace-model=owner/model@0123456789abcdef0123456789abcdef01234567")
    result.assert_outcomes(passed=2)
