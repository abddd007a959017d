"""Adapters of this package and of others, by name and by what they match."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from types import SimpleNamespace
from typing import Any

import pytest

import difftrace
from difftrace.capture import LoopAdapter, registry
from difftrace.core.errors import CaptureError


class Theirs(LoopAdapter):
    name = "theirs"

    def matches(self, target: Any) -> bool:
        return hasattr(target, "theirs")


THEIRS = Theirs()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend that these entry points are installed: installed(name="module:object")."""

    def install(**points: str) -> None:
        found = [EntryPoint(name, value, registry.GROUP) for name, value in points.items()]
        monkeypatch.setattr(registry, "_points", lambda: found)

    return install


def test_the_group_is_the_one_that_is_documented() -> None:
    assert registry.GROUP == "difftrace.adapters"
    assert list(entry_points(group=registry.GROUP)) == []


def test_an_adapter_of_another_distribution_is_found_by_name_and_by_match(
    installed: Any, scorer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EntryPoint, "load", lambda point: {"a:THEIRS": THEIRS, "a:Theirs": Theirs}[point.value])
    installed(theirs="a:THEIRS")
    assert difftrace.record(scorer, engine="theirs").engine == "theirs"
    assert difftrace.record(scorer).engine == "generic"
    scorer.theirs = True
    assert difftrace.record(scorer).engine == "theirs"
    installed(theirs="a:Theirs")
    assert difftrace.record(scorer).engine == "theirs"


def test_none_of_them_takes_the_place_of_our_own(installed: Any, scorer: Any) -> None:
    installed(generic="nowhere:AT_ALL")
    assert difftrace.record(scorer).engine == difftrace.record(scorer, engine="generic").engine == "generic"


def test_one_that_cannot_be_loaded_or_is_no_adapter_is_named(
    installed: Any, scorer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(broken="no.such.module:ADAPTER")
    with pytest.raises(
        CaptureError, match=r"'broken' \(no\.such\.module:ADAPTER, entry point of difftrace\.adapters\)"
    ):
        difftrace.record(scorer)
    monkeypatch.setattr(EntryPoint, "load", lambda point: SimpleNamespace(name="half", version=1))
    with pytest.raises(
        CaptureError, match=r"'broken' .* lacks .*look.*: derive it from difftrace\.capture\.LoopAdapter"
    ):
        difftrace.record(scorer, engine="broken")


def test_an_adapter_itself_can_be_given(scorer: Any) -> None:
    assert difftrace.record(scorer, engine=THEIRS).engine == "theirs"
    with pytest.raises(CaptureError, match="lacks"):
        difftrace.record(scorer, engine=object())  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["llada", "LLaDAModelLM"])
def test_published_checkpoints_are_read_as_the_published_loop(model: str) -> None:
    target = type(model, (), {"config": SimpleNamespace(model_type=model, mask_token_id=3), "forward": None})()
    assert difftrace.record(target).engine == "llada"
