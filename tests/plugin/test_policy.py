"""What passes under which policy, and what is said of a pass that is not identical and of a failure."""

from __future__ import annotations

import pytest

GOLDEN = "run(3, 4, runner=5)"
NEAR_TIE = "run(3, 5, runner=4, rms=1e-5)"
DRIFT = "run(3, 4, runner=5, rms=1e-5)"
NUMERIC = "run(3, 4, runner=5, rms=1e-2)"
WEIGHTS = "run(3, 4, runner=5, weights='f')"
CONFIG = "run(3, 4, runner=5, seed=1)"


@pytest.fixture
def golden(evident, run_pytest) -> None:
    evident(GOLDEN)
    run_pytest("--difftrace-record").stdout.fnmatch_lines(["difftrace: 1 new"])


@pytest.mark.parametrize(
    ("observed", "name", "passing"),
    [
        (NEAR_TIE, "NEAR_TIE", {"near-tie"}),
        (DRIFT, "DRIFT", {"exact", "near-tie", "tokens", "text"}),
        (NUMERIC, "NUMERIC", {"tokens", "text"}),
        (WEIGHTS, "WEIGHTS", {"tokens", "text"}),
        (CONFIG, "CONFIG", {"tokens", "text"}),
    ],
)
@pytest.mark.parametrize("policy", ["exact", "near-tie", "tokens", "text"])
def test_each_policy_lets_its_classes_pass(golden, evident, run_pytest, observed: str, name: str, passing, policy: str):
    evident(observed)
    result = run_pytest(f"--difftrace-policy={policy}")
    if policy in passing:
        result.assert_outcomes(passed=1)
    else:
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines([f"difftrace: {name}: *", f"{name}*: *"])


def test_one_changed_weight_fails_although_no_decision_changes(golden, evident, run_pytest):
    evident(WEIGHTS)
    result = run_pytest("--difftrace-verify")
    result.stdout.fnmatch_lines(
        [
            "difftrace: WEIGHTS: run differs from its baseline, though no decision does",
            "WEIGHTS: The models' weights differ: their digests are not the same.",
            "  outcome: the same decisions",
            "  model.weights: sha256:aaaa* → sha256:ffff*",
            "difftrace: 1 diverged",
        ]
    )


def test_a_failure_says_what_was_measured_and_what_the_budget_is(golden, evident, run_pytest):
    evident(NEAR_TIE)
    result = run_pytest("--difftrace-verify")
    result.stdout.fnmatch_lines(
        [
            "difftrace: NEAR_TIE: run differs from its baseline at step 1, position 3",
            "  baseline: __difftrace__/test_x/test_a.json",
            "",
            "NEAR_TIE (token): At step 1 the golden takes token 4 at position 3, the observed run token 5: *",
            "  measured: scores differ by 2*e-05 (budget 0.00011, *",
            "  budget: default for float32",
            "  cannot tell: Whether the observed run repeats itself: it was not run a second time.",
            "1 of 2 steps agreed before it (1 decision)",
        ]
    )
    result.stdout.fnmatch_lines(["FAILED test_x.py::test_a - Failed: difftrace: NEAR_TIE: *"])


def test_the_class_and_the_environment_are_told_once(golden, evident, run_pytest):
    evident("run(3, 5, runner=4, rms=1e-5, where='lab')")
    lines = run_pytest("--difftrace-verify").outlines
    assert sum("environment.platform_key" in line for line in lines) == 1
    assert not any("suspects" in line for line in lines)


def test_a_baseline_without_evidence_says_what_cannot_be_told(suite, evident, run_pytest):
    suite("def test_a(difftrace): difftrace.check(traj(3, 4))\n")
    run_pytest("--difftrace-record")
    evident("run(3, 4)")
    run_pytest("--difftrace-verify").stdout.fnmatch_lines(["difftrace: 1 verified"])
    evident("run(3, 5)")
    run_pytest("--difftrace-verify").stdout.fnmatch_lines(
        [
            "difftrace: run differs from its baseline at step 1, position 3",
            "CANNOT TELL: Why the runs decide differently at step 1 cannot be told without evidence.",
            "  cannot tell: Why the decisions were made: the golden came without evidence.",
        ]
    )


def test_bare_trajectories_are_not_told_what_nobody_can_know(suite, run_pytest):
    suite("def test_a(difftrace): difftrace.check(traj(3, 4))\n")
    run_pytest("--difftrace-record")
    suite("def test_a(difftrace): difftrace.check(traj(3, 5))\n")
    result = run_pytest("--difftrace-verify")
    result.stdout.fnmatch_lines(["difftrace: run differs from its baseline at step 1, position 3"])
    result.stdout.no_fnmatch_line("*cannot tell*")


def test_another_text_of_the_same_tokens_fails_the_exact_policy(evident, run_pytest):
    evident("run(3, 4, text='one')")
    run_pytest("--difftrace-record")
    evident("run(3, 4, text='another')")
    run_pytest("--difftrace-verify").stdout.fnmatch_lines(
        ["difftrace: INPUT: run differs from its baseline: its final text is another", 'observed "another"']
    )


def test_the_verdict_of_a_batch_is_about_the_sequence_that_is_shown(suite, run_pytest, evident):
    rows = (
        "(lambda one, two: Run(one.trajectories + two.trajectories, model=one.model, sampler=one.sampler, "
        "environment=one.environment, evidences=one.evidences + two.evidences))({}, {})"
    )
    evident(rows.format("run(3, 4, runner=5)", "run(6, 7, 8)"))
    run_pytest("--difftrace-record")
    # The first sequence parts first and is excused, the second is not.
    evident(rows.format(NEAR_TIE, "run(6, 7, 9)"))
    run_pytest("--difftrace-policy=near-tie").stdout.fnmatch_lines(
        ["difftrace: LOGIC: run differs from its baseline at step 2, position 4 of sequence 1 (of 0..1)"]
    )
    run_pytest("--difftrace-verify", "--difftrace-allow=LOGIC").stdout.fnmatch_lines(
        [
            "difftrace: LOGIC: run differs from its baseline at step 2, position 4 of sequence 1 (of 0..1)",
            "  policy: sequence 0: NEAR_TIE: the policy exact accepts no divergence",
            "  other sequences: 0 NEAR_TIE at step 1",
        ]
    )


def test_what_was_allowed_is_said_by_class_at_the_end(golden, evident, run_pytest):
    evident(NEAR_TIE)
    result = run_pytest("--difftrace-verify", "--difftrace-policy=near-tie")
    result.stdout.fnmatch_lines(["difftrace: 1 near tie (allowed by policy near-tie)"])
    # A difference that passes is not passed over in silence where no flag asked for a mode.
    run_pytest("--difftrace-allow=near-tie").stdout.fnmatch_lines(["difftrace: 1 near tie (allowed by name)"])
    result.stdout.no_fnmatch_line("  test_x.py*")


def test_verbose_names_the_tests(golden, evident, run_pytest):
    evident(NEAR_TIE)
    run_pytest("--difftrace-verify", "--difftrace-policy=near-tie", "-v").stdout.fnmatch_lines(
        ["difftrace: 1 near tie (allowed by policy near-tie)", "  test_x.py::test_a: NEAR_TIE: At step 1 the golden *"]
    )


def test_verbose_says_how_far_a_run_drifted(golden, evident, run_pytest):
    evident("run(3, 4, runner=5, rms=1e-5, where='lab')")
    run_pytest("--difftrace-verify", "-v").stdout.fnmatch_lines(
        ["  test_x.py::test_a: DRIFT: logits differ by rms 1e-05 (budget 2.7e-05, 2 steps)"]
    )


def test_a_failure_says_what_of_the_policy_it_breaks(golden, evident, run_pytest):
    evident(DRIFT)
    run_pytest("--difftrace-fail-on=DRIFT").stdout.fnmatch_lines(["  policy: DRIFT was asked to fail"])
    evident(NEAR_TIE)
    run_pytest("--difftrace-policy=tokens").stdout.fnmatch_lines(
        [
            "difftrace: NEAR_TIE: final tokens differ from the baseline's; the runs part at step 1, position 3",
            "  policy: 1 final token differs",
        ]
    )


def test_drift_elsewhere_is_a_note_beside_the_number_of_verified_checks(golden, evident, run_pytest):
    evident("run(3, 4, runner=5, rms=1e-5, where='lab')")
    lines = [line for line in run_pytest("--difftrace-verify").outlines if line.startswith("difftrace: ")]
    assert lines[-2:] == [
        "difftrace: 1 verified (1 drifted within budget)",
        "difftrace: 1 check verified against a baseline recorded on cpu (shared files; this is lab)",
    ]
    run_pytest().stdout.no_fnmatch_line("difftrace: *")


def test_drift_where_bits_should_be_equal_is_pointed_at(golden, evident, run_pytest):
    evident(DRIFT)
    expected = "difftrace: 1 check drifted although its baseline came from an environment like this one*"
    for arguments in ([], ["--difftrace-verify"]):
        result = run_pytest(*arguments)
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(["difftrace: 1 verified (1 drifted within budget)", expected])


def test_passes_reach_the_end_of_a_distributed_run(golden, evident, run_pytest):
    pytest.importorskip("xdist")
    evident(NEAR_TIE)
    run_pytest("-n", "1", "--difftrace-policy=near-tie").stdout.fnmatch_lines(
        ["difftrace: 1 near tie (allowed by policy near-tie)"]
    )


@pytest.mark.parametrize("ini", [False, True])
def test_classes_can_be_made_to_fail_or_pass(golden, evident, run_pytest, pytester, ini: bool):
    def run(fail_on: str = "", allow: str = "") -> pytest.RunResult:
        if ini:
            pytester.makeini(f"[pytest]\ndifftrace_fail_on = {fail_on}\ndifftrace_allow = {allow}")
            return run_pytest("--difftrace-verify")
        given = {"--difftrace-fail-on": fail_on, "--difftrace-allow": allow}
        return run_pytest("--difftrace-verify", *(f"{name}={value}" for name, value in given.items() if value))

    evident(DRIFT)
    run(fail_on="NON_FINITE,drift").assert_outcomes(failed=1)
    run(fail_on="NON_FINITE").assert_outcomes(passed=1)
    evident(WEIGHTS)
    run(allow="weights").assert_outcomes(passed=1)
    run(allow="CONFIG").assert_outcomes(failed=1)


def test_flags_are_added_up_and_outrank_the_ini_file_class_by_class(golden, evident, run_pytest, pytester):
    pytester.makeini("[pytest]\ndifftrace_allow =\n    WEIGHTS\n    NEAR_TIE\ndifftrace_fail_on = DRIFT")
    evident(WEIGHTS)
    run_pytest("--difftrace-allow=RNG", "--difftrace-allow=DRIFT").assert_outcomes(passed=1)
    run_pytest("--difftrace-fail-on=WEIGHTS").assert_outcomes(failed=1)
    evident(DRIFT)
    run_pytest().assert_outcomes(failed=1)
    run_pytest("--difftrace-allow=RNG", "--difftrace-allow=DRIFT").assert_outcomes(passed=1)


def test_a_check_that_fails_can_be_recorded_by_the_command_it_shows(golden, evident, run_pytest, baselines):
    evident(DRIFT)
    before = baselines()
    lines = run_pytest("--difftrace-policy=near-tie", "--difftrace-fail-on=DRIFT").outlines
    [command] = [line.strip() for line in lines if line.startswith("  pytest --difftrace-record")]
    run_pytest("--difftrace-record").stdout.fnmatch_lines(["difftrace: 1 unchanged"])
    run_pytest(*command.split()[1:]).stdout.fnmatch_lines(["difftrace: 1 changed"])
    assert baselines() != before
    run_pytest("--difftrace-fail-on=DRIFT").assert_outcomes(passed=1)


def test_a_run_that_fails_is_repeated_once_to_tell_whether_it_repeats_itself(golden, evident, run_pytest, pytester):
    pytester.makefile("", count="")
    count = "Path('count').write_text(Path('count').read_text() + 'x') and "
    evident(f"run(3, 5, runner=4, rms=1e-5, repeat=lambda: {count}{NEAR_TIE.replace('1e-5', '2e-5')})")
    result = run_pytest("--difftrace-verify")
    result.stdout.fnmatch_lines(
        [
            "difftrace: RUN_TO_RUN: run differs from its baseline at step 1, position 3",
            "RUN_TO_RUN: The observed run does not repeat itself*",
            "Recording would not help*",
        ]
    )
    assert (pytester.path / "count").read_text(encoding="utf-8") == "x"
    run_pytest("--difftrace-verify", "--difftrace-policy=near-tie").assert_outcomes(passed=1)
    assert (pytester.path / "count").read_text(encoding="utf-8") == "x"
    result = run_pytest("--difftrace-policy=near-tie", "--difftrace-fail-on=RUN_TO_RUN")
    result.stdout.fnmatch_lines(["difftrace: RUN_TO_RUN: run differs*", "  policy: RUN_TO_RUN was asked to fail"])


def test_a_run_that_repeats_itself_keeps_its_class(golden, evident, run_pytest):
    evident(f"run(3, 5, runner=4, rms=1e-5, where='cpu', repeat=lambda: {NEAR_TIE})")
    result = run_pytest("--difftrace-verify", "--difftrace-platform-key=lab")
    result.stdout.fnmatch_lines(["difftrace: NEAR_TIE: run differs*"])
    result.stdout.no_fnmatch_line("*cannot tell*")


def test_an_error_while_repeating_leaves_the_failure_as_it_is(golden, evident, run_pytest):
    evident("run(3, 5, runner=4, rms=1e-5, repeat=lambda: 1 / 0)")
    result = run_pytest("--difftrace-verify")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["difftrace: NEAR_TIE: run differs*", "  cannot tell: *not run a second time."])
    result.stdout.no_fnmatch_line("*ZeroDivisionError*")


def test_bisecting_what_llada_did_not_run_says_so_in_one_line(golden, evident, run_pytest):
    evident(NEAR_TIE)
    run_pytest("--difftrace-bisect").stdout.fnmatch_lines(["bisect: not done, since this is no run of the model *"])
