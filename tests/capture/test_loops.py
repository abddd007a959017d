"""The loops that stand for engines are what they say: what they write down is what they did."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import pytest

from loops.cases import CASES, Case
from loops.model import MASK


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
class TestEveryLoop:
    def test_its_events_lead_from_its_first_canvas_to_what_it_returns(self, case: Case) -> None:
        returned, truth = case.result()
        assert len(truth.changes) > 0
        assert case.shown(truth.final) == returned

    def test_it_does_the_same_every_time(self, case: Case) -> None:
        (one, first), (other, second) = case.result(), case.result()
        assert (one, first.events, first.forwards) == (other, second.events, second.forwards)

    def test_it_changes_a_position_twice_only_where_it_says_so(self, case: Case) -> None:
        _, truth = case.result()
        most = max(Counter((event.row, event.position) for event in truth.events).values())
        assert (most > 1) == case.rewrites

    def test_its_steps_follow_forwards(self, case: Case) -> None:
        _, truth = case.result()
        assert truth.forwards[0] >= 1
        assert truth.forwards == sorted(truth.forwards)
        assert truth.forwards[-1] <= truth.model.calls

    def test_masks_are_left_only_where_it_says_so(self, case: Case) -> None:
        returned, _ = case.result()
        assert (MASK in chain.from_iterable(returned)) == case.leaves_masks
