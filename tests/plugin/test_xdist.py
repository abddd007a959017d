"""Under pytest-xdist: nothing lost, nothing overwritten, one device a worker, and groups that are checked."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_difftrace.options import Settings
from pytest_difftrace.reporting import Tally, scattered
from pytest_difftrace.session import Session
from pytest_difftrace.workers import device_of_worker, group_by_model, worker_index

pytest.importorskip("xdist")


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings("verify", "changed", "exact", None, tmp_path, per_platform=False, explicit=True)


def test_recording_with_eight_workers_loses_and_overwrites_nothing(suite, run_pytest, baselines):
    names = [f"test_{letter}" for letter in "abcd"]
    for module in ("test_x", "test_y"):
        body = "@pytest.mark.parametrize('p', ['x/y', 'x:y', 'x_y', 'X_Y', 'é'])\ndef {}(p, difftrace):\n"
        body += "    difftrace.check(traj(*map(ord, p + __name__)))\n    difftrace.check(traj(1), 'two')\n"
        suite("".join(body.format(name) for name in names), name=module)
    result = run_pytest("-n", "8", "--difftrace-record")
    result.assert_outcomes(passed=40)
    result.stdout.fnmatch_lines(["difftrace: mode record (changed)*", "difftrace: 80 new"])
    files = baselines()
    assert len(files) == 80
    assert len({json.dumps(json.loads(data)["test"]) for data in files.values()}) == 80
    result = run_pytest("-n0", "--difftrace-verify")
    result.assert_outcomes(passed=40)
    result.stdout.fnmatch_lines(["difftrace: 80 verified"])
    assert baselines() == files


def test_failure_text_and_counts_reach_the_controller_once(suite, run_pytest):
    suite("def test_a(difftrace): difftrace.check(traj(3))\n")
    result = run_pytest("-n", "1", "--difftrace-verify")
    result.assert_outcomes(failed=1)
    assert result.outlines.count("difftrace: no baseline") == 1
    assert result.outlines.count("difftrace: 1 without baseline") == 1


def test_group_suffix_is_no_part_of_names_or_commands(suite, run_pytest, baselines):
    suite("@pytest.mark.xdist_group('mine')\ndef test_a(difftrace): difftrace.check(traj(3))\n")
    result = run_pytest("-n", "1", "--dist", "loadgroup", "--difftrace-verify")
    result.stdout.fnmatch_lines(["  pytest --difftrace-record test_x.py::test_a"])
    run_pytest("-n", "1", "--dist", "loadgroup", "--difftrace-record").assert_outcomes(passed=1)
    assert list(baselines()) == ["__difftrace__/test_x/test_a.json"]


@pytest.mark.parametrize(
    ("asked", "worker", "kind", "count", "expected"),
    [
        ("auto", 0, "cuda", 4, "cuda:0"),
        ("auto", 5, "cuda", 4, "cuda:1"),
        ("cuda", 6, "cuda", 4, "cuda:2"),
        ("cuda:3", 0, "cuda", 4, "cuda:3"),
        ("cpu", 1, "cuda", 4, "cpu"),
        ("auto", None, "cuda", 4, "auto"),
        ("auto", 3, None, 0, "auto"),
        ("auto", 3, "xpu", 2, "xpu:1"),
    ],
)
def test_worker_i_uses_device_i_mod_n(asked, worker, kind, count, expected):
    assert device_of_worker(asked, worker, kind, count) == expected


@pytest.mark.parametrize(("worker", "index"), [("gw0", 0), ("gw12", 12), ("other", None), (None, None)])
def test_index_of_a_worker_comes_from_its_name(worker: str | None, index: int | None):
    config: Any = SimpleNamespace() if worker is None else SimpleNamespace(workerinput={"workerid": worker})
    assert worker_index(config) == index


def test_tests_of_one_model_get_one_group_and_the_embedded_model_none(pytester, settings):
    items = pytester.getitems(
        """
        import pytest
        @pytest.mark.difftrace(model="a/a")
        def test_a(llada): pass
        @pytest.mark.difftrace(model="a/a")
        def test_b(llada): pass
        @pytest.mark.difftrace(model="b/b")
        def test_c(llada): pass
        def test_embedded(llada): pass
        @pytest.mark.difftrace(model="a/a")
        def test_unused(): pass
        @pytest.mark.difftrace(model="a/a")
        @pytest.mark.xdist_group("mine")
        def test_mine(llada): pass
        @pytest.mark.difftrace(modle="a/a")
        def test_misspelt(llada): pass
        """
    )
    group_by_model(items, settings)
    groups = {item.name: [mark.args[0] for mark in item.iter_markers("xdist_group")] for item in items}
    assert groups["test_a"] == groups["test_b"] != groups["test_c"]
    assert len(groups["test_a"]) == len(groups["test_c"]) == 1
    assert not set(groups["test_a"][0]) & set("@[]")
    assert groups["test_embedded"] == groups["test_unused"] == groups["test_misspelt"] == []
    assert groups["test_mine"] == ["mine"]


def test_a_model_on_several_workers_is_told_with_the_remedy(settings):
    session = Session(settings)
    tally = Tally(session)
    for model, worker in (("a/a", "gw0"), ("a/a", "gw1"), ("b/b", "gw0"), ("b/b", "gw0")):
        report: Any = SimpleNamespace(difftrace={"outcomes": [], "models": [model], "worker": worker})
        tally.pytest_runtest_logreport(report)
    [line] = scattered(session)
    assert line.startswith("difftrace: a/a was loaded by 2 workers")
    assert "--dist loadfile" in line
    assert session.outcomes == Counter()


def test_loadgroup_keeps_a_model_on_one_worker_or_says_that_it_did_not(pytester, run_pytest):
    pytester.makepyfile(
        """
        import os
        from pathlib import Path
        import pytest
        from pytest_difftrace.session import notes

        @pytest.fixture
        def llada(request): notes(request.node).models.append("owner/model")

        @pytest.mark.difftrace(model="owner/model")
        @pytest.mark.parametrize("i", range(12))
        def test_a(i, llada): Path(os.environ["PYTEST_XDIST_WORKER"]).touch()
        """
    )
    result = run_pytest("-n", "2", "--dist", "loadgroup")
    result.assert_outcomes(passed=12)
    together = len(list(pytester.path.glob("gw*"))) == 1
    warned = any("--dist loadfile" in line for line in result.outlines)
    assert together != warned
