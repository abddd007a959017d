"""The benchmarks run and write what their schema says; what they measure is theirs to say, not a test's."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from difftrace.core.schemas import violation

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their own module up by name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def harness() -> ModuleType:
    return _module("_harness")


def test_pairs_are_interleaved_and_compared_pair_by_pair(harness: ModuleType) -> None:
    calls: list[str] = []
    interest, noise = harness.measure_pairs(lambda: calls.append("a"), lambda: calls.append("b"), pairs=2)
    assert "".join(calls) == "ab" + "abaa" + "baaa"
    assert len(interest.first) == len(noise.second) == 2


def test_drift_of_the_machine_does_not_look_like_a_difference(harness: ModuleType) -> None:
    base = tuple(1.0 + turn for turn in range(9))
    pairs = harness.Pairs(base, tuple(1.5 * seconds for seconds in base))
    assert pairs.ratio == pytest.approx(1.5)
    assert pairs.error == pytest.approx(0.0, abs=1e-12)


def test_a_single_pair_gives_a_ratio_without_an_error(harness: ModuleType) -> None:
    [ratio] = harness.ratio_figures("ratio", harness.Pairs((2.0,), (3.0,)), 1.6)
    assert (ratio.value, ratio.at_most) == (1.5, 1.6)
    two = harness.ratio_figures("ratio", harness.Pairs((2.0, 2.0), (3.0, 3.0)))
    assert [(figure.name, figure.value) for figure in two] == [("ratio", 1.5), ("  standard error", 0.0)]


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many"])
def test_a_number_of_rounds_that_measures_nothing_is_refused(harness: ModuleType, text: str) -> None:
    assert harness.count("12") == 12
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is no whole number of at least 1"):
        harness.count(text)


@pytest.mark.parametrize(("value", "status"), [(1.0, 0), (1.1, 1)])
def test_a_missed_target_shows_in_table_json_and_exit_status(
    harness: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], value: float, status: int
) -> None:
    file = tmp_path / "result.json"
    figures = [harness.Figure("ratio", value, at_most=1.03), harness.Figure("time", 3.0, "ms")]
    assert harness.report("some", {"pairs": 3}, figures, harness.describe_machine(), file) == status
    document = json.loads(file.read_text())
    assert violation("benchmark", document) is None
    assert document["ok"] is (status == 0)
    assert ("MISSED" in capsys.readouterr().out) is (status == 1)


def test_a_result_that_breaks_the_schema_is_not_written(harness: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    with pytest.raises(SystemExit, match="breaks schemas/benchmark"):
        harness.report("some", {"nested": {}}, [harness.Figure("a", 1.0)], {}, file)
    assert not file.exists()


def test_the_machine_is_described_without_naming_it(harness: ModuleType) -> None:
    text = json.dumps(harness.describe_machine())
    assert socket.gethostname() not in text
    assert str(Path.cwd()) not in text


def test_the_store_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "store.json"
    command = [sys.executable, str(BENCHMARKS / "store.py"), "--trajectories", "20", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path), "--json", str(file)], capture_output=True, text=True, check=False
    )
    # Twenty say nothing about the targets, which may be met or missed.
    assert done.returncode in (0, 1), done.stderr
    document = json.loads(file.read_text())
    assert violation("benchmark", document) is None
    assert {"get", "put_many, 100 a commit"} <= {figure["name"] for figure in document["figures"]}
    assert [entry.name for entry in tmp_path.iterdir()] == ["store.json"]
    assert str(tmp_path) not in file.read_text()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="ranks are forked")
def test_threads_processes_and_the_agreement_of_ranks_are_timed_in_one_go(tmp_path: Path) -> None:
    file = tmp_path / "ranks.json"
    chart, agreement = tmp_path / "throughput.svg", tmp_path / "agreement.svg"
    small = ["--trajectories", "8", "--most", "1", "--runs", "3", "--svg", str(chart), "--ranks-svg", str(agreement)]
    command = [sys.executable, str(BENCHMARKS / "scalability.py"), "--ranks", "1,2,1000000000", *small]
    done = subprocess.run([*command, "--json", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(file.read_text())
    assert violation("benchmark", document) is None
    values = {figure["name"]: figure["value"] for figure in document["figures"]}
    assert {"1 threads: runs a second", "1 rank: nothing to agree on", "2 ranks: agreement on a run"} <= values.keys()
    # What stands beside the paper's figure is the same ratio.
    alone, added = values["  capturing and storing a run"], values["2 ranks: agreement on a run"]
    assert values["  with it, capturing and storing / alone"] == pytest.approx(1 + added / alone)
    assert values["the paper, coordinated / one GPU, 72 GPUs"] == 1.18
    assert (document["settings"]["ranks"], document["settings"]["left out for want of memory"]) == (
        "1, 2",
        "1000000000",
    )
    assert str(tmp_path) not in file.read_text()
    assert all("rect" in drawn.read_text() for drawn in (chart, agreement))


def test_validating_is_timed(tmp_path: Path) -> None:
    file = tmp_path / "validate.json"
    command = [sys.executable, str(BENCHMARKS / "validate.py"), "--baselines", "3", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--gen-length", "8", "--steps", "8", "--json", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    # The target scales with the number of baselines, starting the interpreter does not.
    assert done.returncode in (0, 1), done.stderr
    document = json.loads(file.read_text())
    assert violation("benchmark", document) is None
    targets = {figure["name"]: figure["at_most"] for figure in document["figures"]}
    assert targets["difftrace validate, 3 baselines"] == pytest.approx(0.015)


def test_showing_is_timed(tmp_path: Path) -> None:
    file = tmp_path / "show.json"
    command = [sys.executable, str(BENCHMARKS / "show.py"), "--pairs", "1", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    document = json.loads(file.read_text())
    assert violation("benchmark", document) is None
    assert {figure["at_most"] for figure in document["figures"]} == {350.0, None}


def test_verifying_is_timed_without_the_model(tmp_path: Path) -> None:
    file = tmp_path / "verify.json"
    command = [sys.executable, str(BENCHMARKS / "verify_overhead.py"), "--checks", "6", "--block", "2", "--rounds", "1"]
    done = subprocess.run([*command, "--json", str(file)], capture_output=True, text=True, check=False)
    # So few say nothing about the target.
    assert done.returncode in (0, 1), done.stderr
    document = json.loads(file.read_text())
    assert violation("benchmark", document) is None
    figures = {figure["name"]: figure for figure in document["figures"]}
    assert figures["a check, reports and all"]["at_most"] == 3.0
    assert all(figure["value"] >= 0 for figure in figures.values())


def test_a_check_is_the_median_difference_of_blocks_that_took_turns(harness: ModuleType) -> None:
    verify = _module("verify_overhead")
    # Pairs of blocks of two tests: the first imports, one of the others is held up.
    added = (0.5, 0.002, 0.002, 0.9, 0.002)
    tests = []
    for block, seconds in enumerate(added):
        for checked in (True, False):
            tests += [[checked, block, 0.1 + (seconds if checked else 0.0), 0.0]] * 2
    found = verify.round_of({"tests": tests, "last": [0.1, 0.0]}, "wall", 2)
    assert found.blocks == pytest.approx(added[1:])
    assert found.once == pytest.approx(2 * 0.5 - 2 * 0.002)
    assert found.last == 0.1
    assert verify.per_check([found, found]) == pytest.approx(0.002)


def test_starting_never_gives_time_back(harness: ModuleType) -> None:
    verify = _module("verify_overhead")
    tests = [[checked, block, 1.0 + block * checked, 0.0] for block in range(3) for checked in (True, False)]
    assert verify.round_of({"tests": tests, "last": [0.0, 0.0]}, "wall", 1).once == 0.0


def test_the_overhead_is_measured_on_any_model_folder(tmp_path: Path, conformance_folder: Path) -> None:
    file = tmp_path / "overhead.json"
    small = ["--pairs", "1", "--gen-length", "4", "--steps", "4", "--block-length", "4", "--granularity", "evidence"]
    command = [sys.executable, str(BENCHMARKS / "overhead.py"), "--config", str(conformance_folder), *small]
    done = subprocess.run(
        [*command, "--init", "random", "--json", str(file)], capture_output=True, text=True, check=False
    )
    # One pair says nothing about the target, which may be met or missed.
    assert done.returncode in (0, 1), done.stderr
    assert "two identical runs" in done.stdout
    document = json.loads(file.read_text())
    assert violation("benchmark", document) is None
    sizes = {figure["name"]: figure for figure in document["figures"]}
    assert sizes["evidence, as columns"]["value"] == 240
    assert sizes["evidence, as columns"]["ok"]
    assert str(conformance_folder) not in file.read_text()


def test_the_overhead_of_a_loop_written_elsewhere_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "overhead.json"
    small = ["--pairs", "2", "--gen-length", "4", "--steps", "4", "--granularity", "evidence", "--json", str(file)]
    command = [sys.executable, str(BENCHMARKS / "overhead.py"), "--engine", "llada", *small]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    document = json.loads(file.read_text())
    assert violation("benchmark", document) is None
    figures = {figure["name"]: figure for figure in document["figures"]}
    assert figures["recording / not recording"]["at_most"] == 1.05
    assert figures["steps"]["value"] == 4
    assert figures["evidence, as columns"]["value"] == 240


def test_the_table_of_confusion_is_printed_and_written(tmp_path: Path) -> None:
    file = tmp_path / "divergence.json"
    command = [sys.executable, str(BENCHMARKS / "divergence.py"), "--prompts", "1", "--only", "last step"]
    done = subprocess.run([*command, "--json", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "the last step is missing" in done.stdout
    document = json.loads(file.read_text())
    assert violation("benchmark", document) is None
    figures = {figure["name"]: figure["value"] for figure in document["figures"]}
    assert figures["reference: LENGTH given LENGTH"] == figures["conformance: share right"] == 1
    assert figures["faults that never showed"] == 0


def test_a_fault_without_an_effect_fails_the_table_of_confusion(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, faults, benchmark = (_module(name) for name in ("_harness", "_faults", "divergence"))
    idle = faults.Fault("nothing at all", ("NUMERIC",), lambda setting: setting.twice())
    monkeypatch.setattr(benchmark, "FAULTS", (idle,))
    monkeypatch.setattr(sys, "argv", ["divergence.py", "--prompts", "1"])
    assert benchmark.main() == 1
    assert "NEVER SHOWED: nothing at all" in capsys.readouterr().out


@pytest.mark.skipif(os.environ.get("DIFFTRACE_TEST_FULL") != "1", reason="long: DIFFTRACE_TEST_FULL=1 runs it")
def test_the_cost_of_determinism_is_measured_for_both_cpu_profiles(tmp_path: Path) -> None:
    file = tmp_path / "cost.json"
    command = [sys.executable, str(BENCHMARKS / "determinism_cost.py"), "--pairs", "2", "--json", str(file)]
    done = subprocess.run(
        [*command, "--gen-length", "4", "--steps", "2", "--block-length", "4"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names = [figure["name"] for figure in json.loads(file.read_text())["figures"]]
    assert {"cpu: enforced / not enforced", "cpu-portable: enforced / not enforced"} <= set(names)


@pytest.mark.skipif(os.environ.get("DIFFTRACE_TEST_FULL") != "1", reason="long: DIFFTRACE_TEST_FULL=1 runs it")
def test_forced_verification_is_timed_on_random_weights(tmp_path: Path, conformance_folder: Path) -> None:
    file = tmp_path / "forced.json"
    command = [sys.executable, str(BENCHMARKS / "forced.py"), "--config", str(conformance_folder), "--init", "random"]
    done = subprocess.run(
        [*command, "--pairs", "2", "--runs", "4+4/64", "8+8/8", "--block-length", "4", "--json", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    # Two pairs say nothing about the targets.
    assert done.returncode in (0, 1), done.stderr
    document = json.loads(file.read_text())
    assert violation("benchmark", document) is None
    aimed = {figure["name"]: figure["at_most"] for figure in document["figures"] if figure["at_most"] is not None}
    assert aimed == {
        "canvas 8, 4 tokens in 64 steps: forced / rerun": pytest.approx(1 / 1.5),
        "  8 steps sampled / rerun": 0.2,
    }
    assert str(conformance_folder) not in file.read_text()


@pytest.mark.skipif(os.environ.get("DIFFTRACE_TEST_FULL") != "1", reason="long: DIFFTRACE_TEST_FULL=1 runs it")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read where Linux says it")
def test_capturing_logits_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "logits.json"
    command = [sys.executable, str(BENCHMARKS / "logits_memory.py"), "--length", "4", "--steps", "2"]
    done = subprocess.run(
        [*command, "--vocabulary", "500", "--methods", "lossy:0.1", "--folder", str(tmp_path), "--json", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(file.read_text())
    assert violation("benchmark", document) is None
    aimed = {figure["name"]: figure["at_most"] for figure in document["figures"] if figure["at_most"] is not None}
    assert aimed == {"lossy:0.1: extra memory": 512, "lossy:0.1: largest error": 0.1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["logits.json"]


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("compression", ["--runs", "3", "--logits-steps", "1"], {"the paper's lossless, published": 5203}),
        ("replay", ["--config", "reference", "--trajectories", "2"], {"not exact, of all, by the copy kept apart": 0}),
        ("capture", ["--runs", "2"], {"  the paper's, published, MI300X": 14.6}),
        ("scalability", ["--trajectories", "8", "--most", "2"], {"  missing or not exact": 0}),
    ],
)
def test_the_benchmarks_beside_the_papers_run_and_draw(
    tmp_path: Path, name: str, arguments: list[str], expected: dict[str, float]
) -> None:
    file, chart = tmp_path / "result.json", tmp_path / "charts" / "result.svg"
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *arguments, "--json", str(file), "--svg", str(chart)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # So few say nothing about targets of time.
    assert done.returncode in (0, 1), done.stderr
    document = json.loads(file.read_text())
    assert violation("benchmark", document) is None
    assert expected.items() <= {figure["name"]: figure["value"] for figure in document["figures"]}.items()
    drawn = ElementTree.parse(chart).getroot()
    assert len(drawn.findall("{http://www.w3.org/2000/svg}rect")) > 3
    config = arguments[1] if "--config" in arguments else "random"
    assert document["settings"]["config"] == config
    assert (", reference" in chart.read_text()) is (config == "reference")
    assert str(Path.cwd()) not in chart.read_text()


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("scalability", "--most"),
        ("scalability", "--trajectories"),
        ("replay", "--trajectories"),
        ("compression", "--runs"),
        ("store", "--trajectories"),
    ],
)
def test_a_benchmark_of_nothing_is_refused(harness: ModuleType, name: str, option: str) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), option, "0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"argument {option}: '0' is no whole number of at least 1" in done.stderr


def test_numbers_of_ranks_are_a_list_of_at_least_one(harness: ModuleType) -> None:
    assert harness.counts("1,2,64") == [1, 2, 64]
    for wrong in ("", "x", "1,,2", "0"):
        with pytest.raises(argparse.ArgumentTypeError, match="is no whole number of at least 1"):
            harness.counts(wrong)


def test_128_tokens_in_64_steps_take_at_most_450_bytes(harness: ModuleType) -> None:
    codec = _module("codec")
    (size,) = [row for row in codec.measure_sizes() if row.name == "L=128, T=64"]
    assert size.decision_bytes <= size.most_bytes == 450 < codec.PAPER_BYTES


def test_a_folder_that_is_not_the_papers_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "compression.py"), "--runs", "1", "--logits-steps", "1"]
    done = subprocess.run([*command, "--paper", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is no checkout of" in done.stderr
