"""`difftrace verify`: baselines are run again outside their tests, and everything that can come of that is told."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from difftrace.core.baseline import Baseline, load, save
from difftrace.core.schemas import violation
from difftrace.models import load_model
from difftrace.models.reference import reference_model_path
from difftrace.reports.columns import width

Command = Callable[..., tuple[int, str, str]]

FOLDER = Path(__file__).parents[2] / "examples/quickstart/__difftrace__"
BASELINE = FOLDER / "test_quickstart/test_sum.json"


def with_weights(folder: Path, change: float) -> Path:
    """The reference model with one row of one q_proj changed."""
    from safetensors.torch import load_file, save_file

    for name in ("config.json", "tokenizer.json"):
        shutil.copy(reference_model_path() / name, folder)
    tensors = load_file(reference_model_path() / "model.safetensors")
    tensors["model.transformer.blocks.2.q_proj.weight"][3] += change
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So changed that it decides otherwise."""
    return with_weights(tmp_path_factory.mktemp("changed"), 5.0)


@pytest.fixture(scope="module")
def touched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Changed, and deciding as before."""
    return with_weights(tmp_path_factory.mktemp("touched"), 1e-3)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.json"
    path.write_bytes(BASELINE.read_bytes()[:-20])
    return path


def without_seed(path: Path, **arguments: Any) -> Path:
    """A baseline as a loop without a seed would have left it."""
    golden = load(BASELINE)
    assert golden.sampler is not None
    given = {**golden.sampler.arguments, "noise": "upstream", "seed": None, **arguments}
    save(path, replace(golden, sampler=replace(golden.sampler, arguments=given)))
    return path


def edited(path: Path, positions: slice = slice(3, 6)) -> Path:
    """A baseline whose decisions nobody made."""
    golden = load(BASELINE)
    trajectory = golden.sequences[0].trajectory
    tokens = trajectory.tokens.copy()
    tokens[positions] = 7
    record = replace(golden.sequences[0], trajectory=replace(trajectory, tokens=tokens), evidence=None)
    save(path, replace(golden, sequences=(record,)))
    return path


def document(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out)
    assert violation("verification", found) is None
    return found


def assert_fits(out: str, *paths: Path) -> None:
    """Only lines with a path may be wider than a hundred columns."""
    for line in out.splitlines():
        assert width(line) <= 100 or any(str(path) in line for path in paths), line


@pytest.mark.parametrize("strategy", ["rerun", "forced", "sampled"])
def test_what_still_runs_as_recorded_passes(difftrace: Command, strategy: str) -> None:
    status, out, err = difftrace("verify", BASELINE, "--strategy", strategy)
    assert (status, err) == (0, "")
    assert out.startswith(f"passed         {BASELINE}:")
    assert "IDENTICAL" in out
    assert out.endswith("1 baseline: 1 passed\n")
    assert_fits(out, BASELINE)


@pytest.mark.parametrize("strategy", ["rerun", "forced"])
def test_a_pass_without_evidence_says_what_it_cannot_tell(difftrace: Command, tmp_path: Path, strategy: str) -> None:
    golden, path = load(BASELINE), tmp_path / "bare.json"
    save(path, replace(golden, sequences=(replace(golden.sequences[0], evidence=None),)))
    status, out, _ = difftrace("verify", path, "--strategy", strategy)
    assert (status, "IDENTICAL" in out) == (0, True)
    assert "  cannot tell: Whether the logits are the same: the golden came without evidence.\n" in out
    assert_fits(out, path)
    assert ("cannot tell" in difftrace("verify", BASELINE, "--strategy", strategy)[1]) == (strategy == "forced")


def test_a_folder_stands_for_every_baseline_below_it(difftrace: Command) -> None:
    status, out, _ = difftrace("verify", FOLDER.parent, "--json")
    found = document(out)
    assert (status, found["status"]) == (0, "passed")
    assert [one["path"] for one in found["baselines"]] == [str(path) for path in sorted(FOLDER.rglob("*.json"))]
    assert {one["class"] for one in found["baselines"]} == {"IDENTICAL"}


def test_other_weights_fail_with_the_step_and_the_canvas(difftrace: Command, changed: Path) -> None:
    status, out, err = difftrace("verify", BASELINE, "--model", changed)
    assert (status, err) == (1, "")
    assert "WEIGHTS, first at step 0, position 10" in out
    assert "the canvas before step 0, and what each commits at it:" in out
    assert f"difftrace bisect {BASELINE} --model {changed}" in out
    assert "cannot tell: Whether the observed run repeats itself" not in out
    assert_fits(out, BASELINE)


def test_forced_finds_every_step_that_differs_and_names_the_weights(difftrace: Command, changed: Path) -> None:
    arguments = ("verify", BASELINE, "--model", changed, "--strategy", "forced")
    status, out, _ = difftrace(*arguments, "--json")
    [one] = document(out)["baselines"]
    assert (status, one["status"], one["class"], one["step"], one["position"]) == (1, "failed", "WEIGHTS", 0, 10)
    forced = one["forced"]
    assert [found["step"] for found in forced["divergent"]] == [0, 7]
    assert (len(forced["steps"]), forced["sample"]) == (16, None)
    out = difftrace(*arguments)[1]
    assert "The models' weights differ" in out
    assert "2 of 16 scored steps decide otherwise" in out
    assert "step 7, position 11: golden token 23 '2', here token 24 '3'" in out
    assert "by budget, not bit" in " ".join(out.split())
    assert_fits(out, BASELINE)


def test_how_far_a_step_is_off_is_never_cut_off(difftrace: Command, tmp_path: Path) -> None:
    golden, path = load(BASELINE), tmp_path / "batch.json"
    trajectory = golden.sequences[0].trajectory
    tokens = trajectory.tokens.copy()
    tokens[3:6] = 7
    edited = replace(golden.sequences[0], trajectory=replace(trajectory, tokens=tokens), evidence=None)
    pieces = {**golden.pieces, 7: "a long piece of text"}
    save(path, replace(golden, sequences=(golden.sequences[0], edited), pieces=pieces))
    out = difftrace("verify", path, "--strategy", "forced")[1]
    assert out.count("golden token 7 'a") == len(re.findall(r"order by (at\s+least\s+)?[\d.e-]+\)", out)) >= 3
    assert_fits(out, path)


def test_forced_does_not_pass_other_weights_because_they_decide_alike(difftrace: Command, touched: Path) -> None:
    arguments = ("verify", BASELINE, "--model", touched, "--strategy", "forced")
    status, out, _ = difftrace(*arguments)
    assert status == 1
    assert "none of 16 scored steps decide otherwise" in out
    assert difftrace(*arguments, "--allow", "weights")[0] == 0


def test_what_is_allowed_passes_and_is_told(difftrace: Command, touched: Path) -> None:
    status, out, _ = difftrace("verify", BASELINE, "--model", touched, "--allow", "drift,weights")
    assert status == 0
    assert "weights differ" in out
    assert "policy: WEIGHTS was allowed" in out


def test_what_passes_within_a_budget_is_told_with_it(difftrace: Command) -> None:
    status, out, _ = difftrace("verify", BASELINE, "--dtype", "bfloat16")
    assert (status, "DRIFT" in out) == (0, True)
    assert "  measured: scores differ by" in out
    assert "  budget: default for bfloat16\n  outcome: the same decisions\n" in out
    assert "cannot tell: Whether the observed run repeats itself" in out
    assert_fits(out, BASELINE)


def test_policies_judge_a_rerun(difftrace: Command, tmp_path: Path, changed: Path) -> None:
    path = edited(tmp_path / "edited.json")
    # What was edited is the end of the text, which the tokenizer leaves out.
    assert difftrace("verify", path, "--policy", "text")[0] == 0
    assert difftrace("verify", path, "--policy", "tokens")[0] == 1
    status, out, _ = difftrace("verify", BASELINE, "--model", changed, "--policy", "text")
    assert status == 1
    assert "policy: the texts differ" in out


def test_sampled_says_which_steps_and_what_that_is_worth(difftrace: Command) -> None:
    arguments = ("verify", BASELINE, "--strategy", "sampled", "--steps", 4, "--sample-seed")
    forced = document(difftrace(*arguments, 7, "--json")[1])["baselines"][0]["forced"]
    assert len(forced["steps"]) == 4
    assert forced["sample"] == {"seed": 7, "caught_from": 8, "share": 0.5, "single": 0.25}
    other = document(difftrace(*arguments, 8, "--json")[1])["baselines"][0]["forced"]
    assert other["steps"] != forced["steps"]
    out = difftrace(*arguments, 7)[1]
    assert f"steps: {', '.join(map(str, forced['steps']))}\n" in out
    assert "caught\n    with 95 %" in out


def test_a_batch_of_one_is_exact(difftrace: Command) -> None:
    out = difftrace("verify", BASELINE, "--strategy", "forced", "--batch", 1, "--json")[1]
    forced = document(out)["baselines"][0]["forced"]
    assert (forced["exact"], forced["batch"]) == (True, 1)
    arguments = ("verify", BASELINE, "--strategy", "forced", "--fail-on", "numeric,drift", "--dtype", "bfloat16")
    assert difftrace(*arguments, "--batch", 1)[0] == 1


def test_no_more_divergent_steps_are_listed_than_can_be_read(difftrace: Command, tmp_path: Path) -> None:
    path = edited(tmp_path / "edited.json", slice(0, 16))
    status, out, _ = difftrace("verify", path, "--strategy", "forced")
    assert status == 1
    assert out.count("golden token 7") == 8
    assert "more that decide otherwise; --json lists all" in out


@pytest.mark.parametrize("policy", ["exact", "near-tie"])
def test_forced_lets_only_close_decisions_pass_near_tie(
    difftrace: Command, tmp_path: Path, changed: Path, policy: str
) -> None:
    golden = load(BASELINE)
    assert golden.model is not None
    path = tmp_path / "unnamed.json"
    arguments = ("verify", path, "--model", changed, "--strategy", "forced", "--policy", policy, "--json")
    # Whose weights nobody knows, and whose environment is known to be noisy: decisions are all there is to judge.
    unnamed = replace(golden, model=replace(golden.model, weights=None))
    for budget, name in ((0.0001, "NUMERIC"), (0.1, "NEAR_TIE")):
        save(path, with_budget(unnamed, budget))
        status, out, _ = difftrace(*arguments)
        [one] = document(out)["baselines"]
        assert one["class"] == name
        assert status == (0 if name == "NEAR_TIE" and policy == "near-tie" else 1)
    assert "  budget: calibrated in the baseline\n" in difftrace(*arguments[:-1])[1]


def with_budget(golden: Baseline, size: float) -> Baseline:
    from difftrace.core.recording import Budget

    return replace(golden, budget=Budget(size, size, size, {}))


@pytest.mark.parametrize("strategy", ["rerun", "forced"])
def test_a_baseline_of_another_length_or_first_canvas_says_so(
    difftrace: Command, tmp_path: Path, strategy: str
) -> None:
    golden, path = load(BASELINE), tmp_path / "framed.json"
    trajectory = golden.sequences[0].trajectory
    kept = trajectory.steps < 12
    columns = {name: getattr(trajectory, name)[kept] for name in ("steps", "positions", "tokens")}
    initial = trajectory.initial.copy()
    initial[-1] = 9
    for changes, name, step in (({**columns, "num_steps": 12}, "LENGTH", 12), ({"initial": initial}, "INPUT", None)):
        record = replace(golden.sequences[0], trajectory=replace(trajectory, **changes), evidence=None)
        save(path, replace(golden, sequences=(record,)))
        status, out, _ = difftrace("verify", path, "--strategy", strategy, "--json")
        [one] = document(out)["baselines"]
        assert (status, one["class"], one["step"]) == (1, name, step)


@pytest.mark.parametrize("strategy", ["rerun", "forced"])
def test_a_generator_nobody_recorded_makes_a_baseline_impossible_to_run(
    difftrace: Command, tmp_path: Path, strategy: str
) -> None:
    path = without_seed(tmp_path / "unseeded.json", temperature=0.7)
    status, out, _ = difftrace("verify", path, BASELINE, "--strategy", strategy)
    assert status == 2
    assert out.startswith(f"could not run  {path}\n")
    assert "torch's global generator" in out
    assert out.endswith("2 baselines: 1 passed, 1 could not run\n")
    found = document(difftrace("verify", path, "--strategy", strategy, "--json")[1])
    assert found["status"] == "could not run"
    assert "torch's global generator" in found["baselines"][0]["error"]


def test_a_run_that_draws_nothing_needs_no_seed(difftrace: Command, tmp_path: Path) -> None:
    assert difftrace("verify", without_seed(tmp_path / "greedy.json"))[0] == 0


def test_one_that_could_not_be_run_outweighs_one_that_differs(difftrace: Command, broken: Path, tmp_path: Path) -> None:
    status, out, _ = difftrace("verify", broken, edited(tmp_path / "edited.json"), BASELINE, "--json")
    found = document(out)
    assert (status, found["status"]) == (2, "could not run")
    assert [one["status"] for one in found["baselines"]] == ["could not run", "failed", "passed"]
    assert [one["class"] for one in found["baselines"]] == ["INVALID", None, "IDENTICAL"]
    assert "complete JSON" in found["baselines"][0]["error"]


def test_without_the_model_that_was_recorded_it_asks_for_it(difftrace: Command, tmp_path: Path) -> None:
    golden = load(BASELINE)
    assert golden.model is not None
    path = tmp_path / "other.json"
    save(path, replace(golden, model=replace(golden.model, name="me/big\x1b[31m", weights="sha256:" + "0" * 64)))
    status, out, _ = difftrace("verify", path)
    assert status == 2
    assert "was recorded with me/big\\x1b[31m; give it as --model" in out


def test_a_hostile_file_name_reaches_the_terminal_defused(difftrace: Command, broken: Path) -> None:
    hostile = broken.rename(broken.with_name("x\x1b[31m\n::error::.json"))
    status, out, _ = difftrace("verify", hostile)
    assert status == 2
    assert "\x1b" not in out
    assert not any(line.startswith("::") for line in out.splitlines())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Missing argument"),
        (("absent.json",), "does not exist"),
        ((BASELINE, "--strategy", "forced", "--policy", "text"), "judges the end of a run"),
        ((BASELINE, "--strategy", "sampled", "--policy", "tokens"), "judges the end of a run"),
        ((BASELINE, "--steps", 4), "go with --strategy sampled"),
        ((BASELINE, "--strategy", "forced", "--sample-seed", 4), "go with --strategy sampled"),
        ((BASELINE, "--batch", 4), "goes with forced and sampled"),
        (
            (BASELINE, "--strategy", "forced", "--fail-on", "drift,rng"),
            "can miss DRIFT, which is to fail: use --strategy",
        ),
        ((BASELINE, "--strategy", "sampled", "--batch", 1, "--fail-on", "run-to-run"), "can miss RUN_TO_RUN, which is"),
        ((BASELINE, "--fail-on", "bad"), "there is no class of divergence 'bad'"),
        ((BASELINE, "--fail-on", "rng", "--allow", "RNG"), "cannot both fail and be allowed"),
        ((BASELINE, "--profile", "abacus"), "abacus"),
        ((Path(__file__).parent,), "nothing to verify"),
    ],
)
def test_usage_errors_exit_with_2_and_run_nothing(difftrace: Command, arguments: tuple[object, ...], says: str) -> None:
    status, out, err = difftrace("verify", *arguments)
    assert (status, out) == (2, "")
    assert says in err


def test_baselines_share_one_loaded_model(
    difftrace: Command, tmp_path: Path, changed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they were recorded with several, of which another one is to take the place."""
    loads: list[object] = []

    def counted(*given: Any, **named: Any) -> Any:
        loads.append(given)
        return load_model(*given, **named)

    monkeypatch.setattr("difftrace.models.load_model", counted)
    golden = load(BASELINE)
    assert golden.model is not None
    for number in range(4):
        weights = golden.model.weights if number % 2 else "sha256:" + "0" * 64
        save(tmp_path / f"{number}.json", replace(golden, model=replace(golden.model, weights=weights)))
    status, out, _ = difftrace("verify", tmp_path, "--model", reference_model_path(), "--json")
    assert (status, len(loads)) == (1, 1)
    assert [one["status"] for one in document(out)["baselines"]] == ["failed", "passed"] * 2
    # Without it each says whether the reference model is its own, which is loaded once all the same.
    status, out, _ = difftrace("verify", tmp_path, "--json")
    assert (status, len(loads)) == (2, 2)
    assert [one["status"] for one in document(out)["baselines"]] == ["could not run", "passed"] * 2


def test_a_folder_stands_for_the_baselines_in_it_and_for_no_other_file(difftrace: Command, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "other.json").write_bytes(BASELINE.read_bytes())
    assert "nothing to verify" in difftrace("verify", tmp_path)[2]
    (tmp_path / "golden.json").write_bytes(BASELINE.read_bytes())
    (tmp_path / "broken.json").write_bytes(BASELINE.read_bytes()[:-20])
    status, out, _ = difftrace("verify", tmp_path, "--json")
    assert status == 2
    assert [Path(one["path"]).name for one in document(out)["baselines"]] == ["broken.json", "golden.json"]
