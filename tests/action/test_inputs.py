"""Inputs as the action's environment has them: values, lists, and one message for each that is not understood."""

from __future__ import annotations

from typing import get_args

import pytest

from difftrace.core import classes, policies
from pytest_difftrace import options
from pytest_difftrace.github import inputs
from pytest_difftrace.github.errors import ActionError

DEFAULTS = {
    "mode": "verify",
    "python": "python3",
    "install": "auto",
    "results-dir": ".difftrace",
    "upload-artifact": "true",
    "artifact-name": "difftrace-results",
    "fail-on-divergence": "true",
    "summary": "true",
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def parse(**given: str) -> inputs.Inputs:
    values = {**DEFAULTS, **{name.replace("_", "-"): value for name, value in given.items()}}
    return inputs.parse({inputs.PREFIX + name.upper().replace("-", "_"): value for name, value in values.items()})


def test_what_is_left_out_is_left_to_the_projects_settings():
    found = parse()
    assert (found.mode, found.install, found.upload_artifact, found.summary) == ("verify", "auto", True, True)
    assert (found.paths, found.pytest_args) == ((), ())
    assert found.policy == found.strategy == found.profile == found.model == ""


def test_paths_are_lines_and_keep_their_spaces():
    assert parse(paths=" tests/a b\n\n  test_x.py::test[one two]\n").paths == ("tests/a b", "test_x.py::test[one two]")


def test_arguments_are_words_as_a_shell_splits_them_and_nothing_is_expanded():
    assert parse(pytest_args="-k 'sum and not $HOME'\n-n 2").pytest_args == ("-k", "sum and not $HOME", "-n", "2")


def test_a_model_of_the_hub_has_a_commit():
    assert parse(model=f"GSAI-ML/LLaDA-8B-Base@{COMMIT}").hub_model == ("GSAI-ML/LLaDA-8B-Base", COMMIT)
    assert parse(model="models/small").hub_model is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", ""),
        ("mode", "verify\nrecord"),
        ("paths", "--collect-only"),
        ("pytest_args", "-k 'open"),
        ("pytest_args", "-v --difftrace-results=else"),
        ("pytest_args", "--difftrace-results else"),
        ("model", "GSAI-ML/LLaDA-8B-Base@main"),
        ("policy", "loose"),
        ("strategy", "guess"),
        ("fail_on", "near-tie"),
        ("fail_on", "DRIFT, NEARTIE"),
        ("fail_on", ","),
        ("platform_key", "Über"),
        ("platform_key", "a" * 41),
        ("profile", "tpu"),
        ("install", "yes"),
        ("results_dir", "a\nb"),
        ("upload_artifact", "True"),
        ("artifact_name", "a/b"),
        ("artifact_name", ""),
        ("fail_on_divergence", "no"),
        ("summary", "1"),
    ],
)
def test_a_value_that_is_not_understood_is_named_with_its_input(name, value):
    with pytest.raises(ActionError) as caught:
        parse(**{name: value})
    [message] = caught.value.messages
    assert message.startswith(f"input {name.replace('_', '-')}: it takes ")


def test_every_bad_input_is_told_at_once_and_on_one_line_each():
    with pytest.raises(ActionError) as caught:
        parse(mode="a\n::error::b", policy="\x1b[31m", install="x" * 500)
    assert len(caught.value.messages) == 3
    assert all(message.isprintable() and len(message) < 200 for message in caught.value.messages)


def test_a_misspelt_class_is_named_with_those_that_there_are():
    assert parse(fail_on="NEAR_TIE DRIFT,\nLENGTH").fail_on == "NEAR_TIE DRIFT,\nLENGTH"
    with pytest.raises(ActionError, match=r"NEAR_TIE, .* separated by commas, not 'NEARTIE'"):
        parse(fail_on="DRIFT,NEARTIE")


def test_policies_strategies_and_classes_are_those_of_the_plugin():
    assert inputs.POLICIES == options.POLICIES == get_args(policies.Policy)
    assert [*inputs.CLASSES] == [one for one in classes.CLASSES if one != "IDENTICAL"]
    assert inputs.STRATEGIES == options.STRATEGIES
