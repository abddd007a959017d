"""The rules of the house that no single module can keep alone."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "pytest_difftrace", "tests", "benchmarks", "examples")
# Folders of results are named for test files.
SOURCES = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py") if file.is_file())

# What a test suite that does not use the plugin must not pay for.
HEAVY = {"torch", "transformers", "tokenizers", "safetensors", "numpy", "jsonschema", "click", "zstandard"}
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def _imported_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after `statement`."""
    program = f"import json, sys\n{statement}\nprint(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_arrows_between_packages_point_one_way(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cli = pytest.importorskip("importlinter.cli", reason="needs import-linter (dependency group dev)")
    monkeypatch.chdir(ROOT)
    status = cli.lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert status == cli.EXIT_STATUS_SUCCESS, capsys.readouterr().out


@pytest.mark.skipif(importlib.util.find_spec("pytest_difftrace.plugin") is None, reason="no plugin here")
def test_having_the_plugin_installed_loads_nothing_heavy() -> None:
    loaded = _imported_by("import pytest_difftrace.plugin")
    assert "pytest_difftrace" in loaded
    assert loaded & HEAVY == set()


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert _imported_by("import difftrace") & HEAVY == set()


def test_reading_and_comparing_baselines_needs_no_torch() -> None:
    loaded = _imported_by(
        "import difftrace; difftrace.load, difftrace.compare, difftrace.Trajectory, difftrace.Baseline"
    )
    assert "numpy" in loaded
    assert loaded & {"torch", "transformers", "tokenizers", "safetensors"} == set()


def test_storing_trajectories_needs_neither_torch_nor_an_optional_package() -> None:
    loaded = _imported_by("import difftrace.store")
    assert "sqlite3" in loaded
    assert loaded & {"torch", "transformers", "tokenizers", "safetensors", "pyarrow", "jsonschema"} == set()


def _unsafe(tree: ast.AST) -> list[str]:
    """Return what in a module could run what a file or a model repository says."""
    return [ast.unparse(node) for node in ast.walk(tree) if _is_unsafe(node)]


def _is_unsafe(node: ast.AST) -> bool:
    match node:
        case ast.Import(names=names):
            return any(alias.name.partition(".")[0] in UNSAFE_MODULES for alias in names)
        case ast.ImportFrom(module=str(module)):
            return module.partition(".")[0] in UNSAFE_MODULES
        case ast.Attribute(value=ast.Name(id="torch" | "np" | "numpy"), attr="load"):
            return True
        case ast.keyword(arg="trust_remote_code", value=value):
            return not (isinstance(value, ast.Constant) and value.value is False)
        case ast.keyword(arg="allow_pickle") | ast.Call(func=ast.Name(id="eval" | "exec")):
            return True
    return False


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_nothing_is_ever_unpickled_and_no_foreign_code_is_run(file: Path) -> None:
    assert _unsafe(ast.parse(file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load('x')",
        "np.load(path)",
        "f(allow_pickle=True)",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
        "AutoModel.from_pretrained('x', trust_remote_code=flag)",
        "eval(text)",
    ],
)
def test_the_check_would_see_it(line: str) -> None:
    assert _unsafe(ast.parse(line))
