"""Sessions that are one rank of several each."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="ranks are those of torch.distributed")

from difftrace.core.trajectory import Trajectory  # noqa: E402
from difftrace.verification import ModelRunner  # noqa: E402

needs_gloo = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="needs torch with gloo"
)

# The group lives as long as the session; every write is noted with the rank that made it.
CONFTEST = """
import os
import pytest

@pytest.fixture(scope="session", autouse=True)
def group(pytestconfig):
    import torch.distributed as dist
    from datetime import timedelta
    where = {} if os.environ.get("MEET") is None else {"init_method": f"file://{os.environ['MEET']}"}
    dist.init_process_group("gloo", rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"]),
                            timeout=timedelta(seconds=60), **where)

@pytest.fixture(scope="session", autouse=True)
def writes(group):
    from pytest_difftrace import recording
    save = recording.save
    def noted(path, baseline):
        with open("writes.txt", "a") as file:
            file.write(f"{os.environ['RANK']} {path.stem}\\n")
        save(path, baseline)
    recording.save = noted
    yield
    recording.save = save
"""

SUITE = """
RANK = int(os.environ["RANK"])

def test_same(llada, difftrace):
    run = llada.generate("12 + 30 = ", gen_length=8, steps=8)
    difftrace.check(run)

def test_rank_1_decides_otherwise(difftrace):
    difftrace.check(traj(1, 2, 3 + RANK))

def test_rank_0_checks_more(difftrace):
    difftrace.check(traj(1), name="a")
    if RANK == 0:
        difftrace.check(traj(2), name="b")

def test_rank_1_fails(difftrace):
    difftrace.check(traj(1))
    assert RANK == 0

def test_rank_1_is_skipped(difftrace):
    if RANK == 1:
        pytest.skip("not here")
    difftrace.check(traj(1))

def test_last(difftrace):
    difftrace.check(traj(1, 2))

def test_on_rank_0_alone(difftrace):
    difftrace.check(traj(1))
"""

Sessions = Callable[..., list[tuple[int, str]]]


@pytest.fixture
def sessions(pytester: pytest.Pytester) -> Iterator[Sessions]:
    """Run pytest as two ranks, each with its own arguments behind the common ones; return status and output."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, more: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())) -> list[tuple[int, str]]:
        meet = pytester.path / f"rendezvous{len(started)}"
        for rank in range(2):
            environment = {
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "OMP_NUM_THREADS": "1",
                "RANK": str(rank),
                "WORLD_SIZE": "2",
                "MEET": str(meet),
            }
            words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", *arguments, *more[rank]]
            started.append(
                subprocess.Popen(
                    words,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env=environment,
                    cwd=pytester.path,
                )
            )
        outputs = [process.communicate(timeout=120)[0] for process in started[-2:]]
        return [(process.returncode, output) for process, output in zip(started[-2:], outputs, strict=True)]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def outcomes(output: str) -> dict[str, str]:
    """Return how the short summary says that each test ended."""
    return {
        test: word for word, test in re.findall(r"^(PASSED|FAILED|ERROR|SKIPPED) \S*?::(\w+)", output, re.MULTILINE)
    }


@needs_gloo
def test_ranks_record_in_step_rank_0_writes_and_those_that_differ_are_named(
    pytester: pytest.Pytester, suite: Callable[..., Path], sessions: Sessions
) -> None:
    pytester.makeconftest(CONFTEST)
    suite(SUITE)
    reports = [f"--difftrace-report=rank{rank}.json" for rank in range(2)]
    recorded = sessions("--difftrace-record", more=((reports[0],), (reports[1], "-k", "not alone")))
    for rank, (status, output) in enumerate(recorded):
        assert status == 1, output
        assert "ranks: this one writes" in output if rank == 0 else "ranks: rank 0 writes" in output
        ended = outcomes(output)
        assert ended["test_same"] == ended["test_last"] == "PASSED", output
        assert ended["test_rank_1_decides_otherwise"] == "FAILED"
        assert "rank 1 parts from rank 0 at step 2, position 4: token 3 on rank 0, token 4 on rank 1" in output
        assert ended["test_rank_0_checks_more"] == "FAILED"
        assert "rank 0: at the check 'b' of test_" in output
        assert "rank 1: done after 0 runs" in output
        assert ended["test_rank_1_fails"] == "FAILED"
        assert ended["test_rank_1_is_skipped"] == "FAILED"
    assert "not recorded: the test did not pass on rank 1" in recorded[0][1]
    assert outcomes(recorded[0][1])["test_on_rank_0_alone"] == "FAILED"
    assert "rank 1: ended" in recorded[0][1]
    assert "difftrace: ranks are out of step" in recorded[1][1].splitlines(), "told as the session ends"
    assert (pytester.path / "writes.txt").read_text().splitlines() == ["0 test_same", "0 test_last"]
    report = json.loads((pytester.path / "rank0.json").read_text())
    assert len(report["tests"]) == 7
    assert not (pytester.path / "rank1.json").exists()


@needs_gloo
@pytest.mark.skipif(os.environ.get("DIFFTRACE_TEST_FULL") != "1", reason="DIFFTRACE_TEST_FULL=1 runs torchrun")
def test_torchrun_records_once(pytester: pytest.Pytester, suite: Callable[..., Path]) -> None:
    pytester.makeconftest(CONFTEST)
    suite("def test_a(llada, difftrace): difftrace.check(llada.generate('1 + 1 = ', gen_length=8, steps=8))\n")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "pytest"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    for mode in ("--difftrace-record", "--difftrace-verify"):
        words = [sys.executable, *launcher, "-p", "no:cacheprovider", mode]
        done = subprocess.run(
            words, cwd=pytester.path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert (pytester.path / "writes.txt").read_text().splitlines() == ["0 test_a"]


class OtherRank:
    """Stands for two ranks of which the other one always answers yes."""

    rank, size, writes, met, lost = 0, 2, True, False, False

    def __init__(self) -> None:
        self.agreed: list[Sequence[Trajectory]] = []

    def ask(self, answer: bool) -> tuple[bool, bool]:
        return answer, True

    def agree(self, trajectories: Sequence[Trajectory], label: str) -> None:
        assert label == "the check of test_x.py::test_a"
        self.agreed.append(trajectories)

    def rest(self) -> None:
        pass


@pytest.fixture
def other_rank(monkeypatch: pytest.MonkeyPatch) -> OtherRank:
    other = OtherRank()
    monkeypatch.setattr("pytest_difftrace.ranks.group", lambda: other)
    return other


def test_a_run_that_another_rank_has_to_denoise_is_denoised_here_too(
    suite: Callable[..., Path],
    run_pytest: Callable[..., pytest.RunResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    suite("def test_a(llada, difftrace): difftrace.check(llada.generate('1 + 1 = ', gen_length=4, steps=4))\n")
    run_pytest("--difftrace-record").assert_outcomes(passed=1)
    denoised = []
    monkeypatch.setattr(
        ModelRunner, "start", lambda *given, start=ModelRunner.start: denoised.append(1) or start(*given)
    )
    forced = ("--difftrace-verify", "--difftrace-strategy=forced")
    run_pytest(*forced).assert_outcomes(passed=1)
    assert denoised == []
    monkeypatch.setattr("pytest_difftrace.ranks.group", OtherRank)
    run_pytest(*forced).assert_outcomes(passed=1)
    assert denoised == [1]


def test_a_run_that_another_rank_has_to_repeat_is_repeated_here_too(
    evident: Callable[..., Path],
    run_pytest: Callable[..., pytest.RunResult],
    other_rank: OtherRank,
    pytester: pytest.Pytester,
) -> None:
    again = "repeat=lambda: Path('repeated').touch() or run(1, 2)"
    evident(f"run(1, 2, {again})")
    run_pytest("--difftrace-record").assert_outcomes(passed=1)
    assert not (pytester.path / "repeated").exists()
    run_pytest("--difftrace-verify").assert_outcomes(passed=1)
    assert (pytester.path / "repeated").exists()
    assert len(other_rank.agreed) == 3, "both runs of the recording and that of the verification"


@pytest.mark.parametrize(("rank", "files"), [("0", 1), ("1", 0)])
def test_launched_ranks_without_a_group_are_told_so_and_rank_0_alone_writes(
    suite: Callable[..., Path],
    run_pytest: Callable[..., pytest.RunResult],
    baselines: Callable[[], dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
    rank: str,
    files: int,
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "4")
    suite("def test_a(difftrace): difftrace.check(traj(1))\n")
    result = run_pytest("--difftrace-record")
    result.assert_outcomes(passed=1)
    assert len(baselines()) == files
    writer = "this one writes" if rank == "0" else "rank 0 writes"
    result.stdout.fnmatch_lines(
        [
            f"difftrace: rank {rank} of 4 ranks: {writer}; runs are compared across ranks once torch.distributed is *",
            "difftrace: none of the 4 ranks was compared with another: *init_process_group*",
        ]
    )


@pytest.mark.parametrize(("rank", "size"), [("0", "1"), ("4", "4"), ("x", "2"), ("-1", "2")])
def test_an_environment_of_no_several_ranks_changes_nothing(
    suite: Callable[..., Path],
    run_pytest: Callable[..., pytest.RunResult],
    baselines: Callable[[], dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
    rank: str,
    size: str,
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    suite("def test_a(difftrace): difftrace.check(traj(1))\n")
    result = run_pytest("--difftrace-record")
    assert len(baselines()) == 1
    result.stdout.no_fnmatch_line("difftrace: *rank*")
