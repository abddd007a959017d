"""What git compares: a line for what a person reviews, and none that changes without it."""

from __future__ import annotations

from dataclasses import replace

from difftrace.core.baseline import dump
from difftrace.core.recording import Baseline, Budget, ModelIdentity, SamplerIdentity
from difftrace.core.run import Run
from difftrace.core.trajectory import Trajectory
from difftrace.reports.textconv import textconv_lines

MASK = 999


def recorded(trajectory: Trajectory) -> Baseline:
    return Run(
        (trajectory,),
        texts=("one\ntwo",),
        prompt_texts=("p",),
        pieces={1: "a", 2: "b", 3: "c"},
        model=ModelIdentity("m", None, None, None, None, 1000, MASK),
        sampler=SamplerIdentity("llada", 1, {"steps": 2, "remasking": "random"}),
        environment={"device": "cpu", "flags": ["avx2"]},
    ).to_baseline(None)


RUN = Trajectory([1], [7, 1, MASK, MASK], [0, 1], [3, 2], [2, 3], 2, padding=1, attention_mask=[0, 1, 1, 1])


def lines(baseline: Baseline) -> list[str]:
    return list(textconv_lines(dump(baseline)))


def test_fields_come_sorted_and_commits_one_by_one() -> None:
    golden = recorded(RUN)
    assert lines(golden) == [
        "budget: null",
        f'digest: "{golden.digest}"',
        'environment.device: "cpu"',
        'environment.flags: ["avx2"]',
        "model.config: null",
        "model.mask_token_id: 999",
        'model.name: "m"',
        "model.revision: null",
        "model.tokenizer: null",
        "model.vocab_size: 1000",
        "model.weights: null",
        'sampler.arguments.remasking: "random"',
        "sampler.arguments.steps: 2",
        'sampler.name: "llada"',
        "sampler.version: 1",
        "test: null",
        "",
        "sequence 0",
        f'  digest: "{RUN.digest}"',
        "  evidence: null",
        "  prompt tokens: 1",
        "  padding: 1",
        "  steps: 2",
        "  commits: 2",
        "  prompt | p",
        "  text | one",
        "  text | two",
        "  first canvas from 0: 7  a  ░ ×2",
        "  hidden from attention: 0",
        "  step 0, position 3: b (2)",
        "  step 1, position 2: c (3)",
    ]


def test_another_commit_is_another_line_and_a_digest() -> None:
    other = recorded(replace(RUN, tokens=[2, 1]))
    before, after = lines(recorded(RUN)), lines(other)
    changed = [two for one, two in zip(before, after, strict=True) if one != two]
    assert [line.partition(":")[0].strip() for line in changed] == ["digest", "digest", "step 1, position 2"]


def test_a_budget_and_a_prompt_outside_the_canvas_are_told() -> None:
    outside = Trajectory([1, 1, 2], [MASK] * 40, [0], [0], [MASK], 1)
    text = lines(replace(recorded(outside), budget=Budget(0.1, 0.2, 0.3, {"dtype": "float32"})))
    assert {"budget.scores: 0.1", 'budget.measured.dtype: "float32"'} <= set(text)
    assert "  prompt outside the canvas from 0: a ×2  b" in text
    assert [line for line in text if "first canvas" in line] == [
        "  first canvas from 0: ░ ×16",
        "  first canvas from 16: ░ ×16",
        "  first canvas from 32: ░ ×8",
    ]
    assert "  step 0, position 0: ░" in text


def test_what_is_no_baseline_is_shown_as_its_own_text() -> None:
    assert list(textconv_lines(b'{"a":\n "::error::\x1b[31m"\n\xff')) == [
        "cannot be shown as a trajectory: is not UTF-8 text (byte 24)",
        '{"a":',
        ' "::error::\\x1b[31m"',
        "�",
    ]
