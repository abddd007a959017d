"""The page in a browser, opened from disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from difftrace.core.comparison import compare
from difftrace.core.recording import Baseline
from difftrace.reports.explorer import Entry, Parting, Verdict, explorer_page

Recording = Callable[..., Baseline]


def pair(recording: Recording, name: str, **made: Any) -> Entry:
    """A failed check whose runs part at step 3."""
    golden = recording(name, **made)
    observed = recording(name, parts_at=3, environment={"torch": "2.14.0", "dtype": "float32", "threads": 4}, **made)
    found = compare(golden.sequences[0].trajectory, observed.sequences[0].trajectory)
    assert found is not None
    return Entry(
        f"tests/test_made.py::{name}",
        "failed",
        "diverged",
        "NUMERIC",
        Parting(found.kind, 0, found.step, found.position, "a", "b"),
        Verdict("The logits differ.", ("scores differ by 1 (budget 0.1, 3 values)",), "given", "2 commits differ"),
        golden=golden,
        observed=observed,
    )


def passed(recording: Recording, name: str) -> Entry:
    return Entry(f"tests/test_made.py::{name}", "passed", "verified", "IDENTICAL", golden=recording(name))


@pytest.fixture
def opened(tab, tmp_path: Path) -> Callable[..., Any]:
    """Write a page of entries and open it; the test fails if the browser complains of it or it asks for anything."""
    pages: list[Path] = []

    def open_page(*entries: Entry, title: str = "A title") -> Any:
        pages.append(tmp_path / "page.html")
        pages[-1].write_text(explorer_page(title, [("Policy", "exact")], entries), encoding="utf-8")
        tab.open(pages[-1])
        return tab

    yield open_page
    assert tab.complaints == []
    assert {url.partition("#")[0] for url in tab.requests} <= {page.as_uri() for page in pages}


def words(tab: Any, side: int = 0) -> list[str]:
    return tab.run(f"[...document.querySelectorAll('.words')[{side}].children].map(e => e.textContent)")


def expected(baseline: Baseline, steps: int) -> list[str]:
    trajectory = baseline.sequences[0].trajectory
    canvas = trajectory.canvas(steps)[trajectory.prompt.size :].tolist()
    return ["░" if token == 126336 else baseline.pieces[token] for token in canvas]


def test_the_slider_goes_through_the_canvases_of_both_runs(opened, recording):
    entry = pair(recording, "test_a")
    tab = opened(entry)
    last = entry.golden.sequences[0].trajectory.num_steps - 1
    for step in (0, last, 2):
        tab.run(
            f"(() => {{ const slider = document.querySelector('input[type=range]'); slider.value = {step};"
            " slider.dispatchEvent(new Event('input')); })()"
        )
        assert tab.text(".counter") == f"step {step} of {last}"
        assert words(tab, 0) == expected(entry.golden, step + 1)
        assert words(tab, 1) == expected(entry.observed, step + 1)
        assert tab.run("document.querySelectorAll('.words')[0].querySelectorAll('.fresh').length") == 2


def test_a_diverged_check_opens_at_its_first_divergence(opened, recording):
    entry = pair(recording, "test_a")
    tab = opened(entry)
    told = json.loads(tab.text("#data"))["checks"][0]
    found = compare(entry.golden.sequences[0].trajectory, entry.observed.sequences[0].trajectory)
    assert (told["step"], told["position"]) == (found.step, found.position)
    assert tab.text(".jump") == f"First divergence: step {found.step}, position {found.position}"
    assert tab.text(".counter").startswith(f"step {found.step} of ")
    start = entry.golden.sequences[0].trajectory.prompt.size
    marked = tab.run("[...document.querySelectorAll('.words .parts')].map(e => Number(e.dataset.position))")
    assert marked == [found.position - start] * 2
    labels = tab.run("[...document.querySelectorAll('.map canvas[role=img]')].map(e => e.getAttribute('aria-label'))")
    assert all(label.endswith(f"first divergence at step {found.step}, position {found.position}") for label in labels)


def test_the_map_colours_the_cell_of_every_commit(opened, recording):
    entry = passed(recording, "test_a")
    tab = opened(entry)
    trajectory = entry.golden.sequences[0].trajectory
    pixels = """(() => {
      const canvas = document.querySelector('.map canvas'), pen = canvas.getContext('2d');
      const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
      const colour = (position, step) => {
        const [x, y] = [38 + (position + 0.5) * 26, 34 + (step + 0.5) * 15].map(Math.floor);
        return [...data.slice(4 * (y * canvas.width + x), 4 * (y * canvas.width + x) + 4)].join();
      };
      const upTo = (length) => Array.from({ length }, (_, index) => index);
      return upTo(8).map(step => upTo(16).map(position => colour(position, step)));
    })()"""
    drawn = tab.run(pixels)
    masked, filled = "238,240,242,255", "219,225,231,255"
    start = trajectory.prompt.size
    committed = set(zip(trajectory.steps.tolist(), (trajectory.positions - start).tolist(), strict=True))
    since = {position: step for step, position in committed}
    for step, row in enumerate(drawn):
        for position, colour in enumerate(row):
            if (step, position) in committed:
                assert colour not in (masked, filled)
            else:
                assert colour == (filled if step > since[position] else masked), (step, position)


def test_a_step_lists_its_decisions_and_the_best_position_passed_over(opened, recording):
    entry = pair(recording, "test_a")
    tab = opened(entry)
    record = entry.golden.sequences[0]
    step = 3
    events = [index for index, one in enumerate(record.trajectory.steps.tolist()) if one == step]
    positions = {str(record.trajectory.positions[event]) for event in events}
    rows = tab.run(
        "[...document.querySelectorAll('table')[0].tBodies[0].rows].map(r => [...r.cells].map(c => c.textContent))"
    )
    assert {row[0] for row in rows[:-1]} == positions
    assert rows[-1][0] == str(record.evidence.rejected_positions[step, 0])
    assert rows[-1][-1] == "best one passed over"
    # The parting step has its values in full, not in the two digits of the map.
    margins = {
        f"{float(record.evidence.top_scores[event] - record.evidence.runner_up_scores[event]):.3g}" for event in events
    }
    assert {f"{float(row[3]):.3g}" for row in rows[:-1]} == margins


def test_filters_and_search_narrow_the_list(opened, recording):
    tab = opened(pair(recording, "test_a"), passed(recording, "test_b"), passed(recording, "test_c"))
    assert tab.texts(".checks li .name") == ["failed: test_a", "passed: test_b", "passed: test_c"]
    tab.run("document.querySelector('.checks [data-value=passed]').click()")
    assert tab.texts(".checks li .name") == ["passed: test_b", "passed: test_c"]
    assert tab.text(".count") == "2 of 3 checks"
    tab.press("/")
    tab.press("_")
    tab.press("c")
    assert tab.texts(".checks li .name") == ["passed: test_c"]
    tab.run("document.querySelector('.checks [data-value=all]').click()")
    tab.run(
        "(() => { const search = document.getElementById('search'); search.value = '';"
        " search.dispatchEvent(new Event('input')); const one = document.getElementById('class');"
        " one.value = 'NUMERIC'; one.dispatchEvent(new Event('change')); })()"
    )
    assert tab.texts(".checks li .name") == ["failed: test_a"]


def test_everything_can_be_reached_by_keys(opened, recording):
    two = recording("test_b")
    batch = replace(two, sequences=(*two.sequences, *recording("test_b", seed=5).sequences))
    tab = opened(pair(recording, "test_a"), Entry("test_made.py::test_b", "passed", "verified", golden=batch))
    steps = []
    for key in ("ArrowRight", "ArrowLeft", "ArrowLeft", "Home", "End", "d"):
        tab.press(key)
        steps.append(tab.text(".counter"))
    assert steps == [f"step {step} of 7" for step in (4, 3, 2, 0, 7, 3)]
    tab.press("ArrowRight", shift=True)
    assert tab.text(".counter") == "step 7 of 7"
    pressed = "document.querySelector('.controls [aria-pressed=true]').textContent"
    colours = []
    for _ in range(3):
        tab.press("c")
        colours.append(tab.run(pressed))
    assert colours == ["Margin", "Agreement", "Confidence"]
    tab.press("j")
    tab.until("document.querySelector('main h2').textContent === 'test_b'")
    assert tab.run("document.querySelector('.checks [aria-current]').textContent").startswith("✓passed: test_b")
    before = words(tab)
    tab.press("]")
    assert words(tab) != before
    tab.press("[")
    assert words(tab) == before
    tab.press("k")
    tab.until("document.querySelector('main h2').textContent === 'test_a'")
    tab.press("?")
    assert tab.run("document.querySelector('dialog').open")
    tab.press("Escape")
    tab.run("document.activeElement.blur()")
    tab.press("Tab")
    assert tab.run("document.activeElement.matches(':focus-visible')")
    assert tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_pointing_at_a_position_tells_its_history_and_a_click_goes_to_its_step(opened, recording):
    entry = passed(recording, "test_a")
    tab = opened(entry)
    trajectory = entry.golden.sequences[0].trajectory
    step, position, token = (int(column[5]) for column in (trajectory.steps, trajectory.positions, trajectory.tokens))
    box = "document.querySelector('.map canvas').getBoundingClientRect()"
    x, y = tab.run(f"{box}.x"), tab.run(f"{box}.y")
    at = x + 38 + (position - trajectory.prompt.size + 0.5) * 26, y + 34 + (step + 0.5) * 15
    tab.point(*at)
    assert tab.text(".readout").startswith(f"Position {position} — “␣word{token}” at step {step}, confidence ")
    tab.click(*at)
    assert tab.text(".counter") == f"step {step} of 7"


HOSTILE = "</script><img src=x onerror=alert(1)><script>alert(2)</script>\x1b[31m\u202e\n::error::owned"
SEEN = "</script><img src=x onerror=alert(1)><script>alert(2)</script>\\x1b[31m\\u202e\\n::error::owned"


def test_hostile_texts_stay_texts(opened, recording):
    made = {"pieces": {**recording().pieces, **dict.fromkeys(recording().pieces, HOSTILE)}}
    golden = recording("x", text=HOSTILE, prompt_text=HOSTILE, environment={HOSTILE: HOSTILE, "torch": "1"}, **made)
    observed = recording("x", parts_at=2, text="other", environment={HOSTILE: "other", "torch": "2"}, **made)
    parting = Parting("decision", 0, 2, 3, HOSTILE, HOSTILE)
    verdict = Verdict(HOSTILE, (HOSTILE,), HOSTILE, HOSTILE, (HOSTILE,), text=(HOSTILE,))
    facts = ((HOSTILE, HOSTILE),)
    entry = Entry(f"a.py::{HOSTILE}", "failed", HOSTILE, HOSTILE, parting, verdict, facts, (HOSTILE,), golden, observed)
    tab = opened(entry, passed(recording, "test_b"), title=HOSTILE)
    assert tab.run("document.images.length + document.querySelectorAll('img, iframe, object, [onerror]').length") == 0
    assert tab.run("document.scripts.length") == 2
    assert tab.text("h1") == SEEN
    assert tab.text("main h2") == SEEN
    assert tab.text(".reason") == SEEN
    assert tab.text(".problem") == SEEN
    assert SEEN in words(tab)
    assert f"Prompt{SEEN}" in tab.texts(".prompt")
    shown = tab.run("document.body.innerText")
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert not any(line.lstrip().startswith("::") for line in shown.splitlines())


def test_runs_without_evidence_or_of_unequal_length_are_shown_as_far_as_they_go(opened, recording):
    golden = recording("x", length=16, steps=16, evidence=False)
    observed = recording("x", length=16, steps=8, evidence=False)
    entry = Entry("a.py::x", "failed", "diverged", None, golden=golden, observed=observed)
    tab = opened(entry)
    tab.press("End")
    assert tab.text(".counter") == "step 15 of 15"
    assert words(tab, 1) == expected(observed, 8)
    assert tab.texts(".words + .note") == ["This run ended after 8 steps; this is its final canvas."]
    assert "recorded without evidence" in tab.text(".legend") or "both made" in tab.text(".legend")
    assert tab.texts("td.number + td + td") == []


def test_a_check_without_files_says_what_its_report_says(opened):
    parting = Parting("decision", 0, 4, 12, "a", "b")
    verdict = Verdict("A close decision.", text=("difftrace: diverged", "  at step 4"))
    entry = Entry("a.py::x", "failed", "diverged", "NEAR_TIE", parting, verdict, problems=("No file.",))
    tab = opened(entry)
    assert tab.text(".problem") == "No file."
    assert tab.text(".class") == "NEAR_TIE"
    assert tab.text(".reason") == "A close decision."
    assert tab.text("pre") == "difftrace: diverged\n  at step 4"
    assert tab.texts(".controls") == []


def test_a_page_without_checks_says_so(opened):
    tab = opened()
    assert tab.text(".empty") == "There is no check in this report."


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_leaves_the_page_sideways(opened, recording, tab, width, dark):
    tab.look(width, 844, dark=dark)
    long = "test_" + "x" * 300
    opened(pair(recording, long), passed(recording, "test_b"))
    assert tab.run("document.documentElement.scrollWidth") == width
    assert tab.run("document.querySelector('main').scrollWidth <= document.querySelector('main').clientWidth")


def test_long_runs_of_many_checks_stay_below_five_megabytes_and_can_be_gone_through(tab, tmp_path, full):
    # Ten different ones thirty times over: the page packs each check by itself, so that repeating saves little.
    made = [full(seed) for seed in range(10)]
    entries = [replace(made[index % 10], test=f"tests/test_made.py::test_{index}") for index in range(300)]
    page = tmp_path / "page.html"
    page.write_text(explorer_page("Many", [], entries), encoding="utf-8")
    assert page.stat().st_size < 5_000_000
    assert "Left out" not in page.read_text(encoding="utf-8")
    tab.open(page)
    assert tab.text(".count") == "300 checks"
    for index in range(1, 4):
        tab.press("j")
        tab.until(f"document.querySelector('main h2').textContent === 'test_{index}'")
        tab.press("End")
        assert words(tab) == expected(made[index].golden, 512)
    assert tab.complaints == []
