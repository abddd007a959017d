"""One step's decision, as pure functions of tensors."""

from __future__ import annotations

import pytest
import torch

from difftrace.sampling.decision import confidence_of, guide, gumbel, select_stable, select_upstream


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("length", [3, 32, 512, 5000])
def test_equal_confidences_are_committed_from_left_to_right(dtype: torch.dtype, length: int) -> None:
    confidence = torch.full((2, length), 0.5, dtype=dtype)
    for count in (0, 1, length // 2, length):
        assert select_stable(confidence, count).tolist() == [list(range(count))] * 2


def test_higher_confidence_goes_first_and_position_decides_among_equals() -> None:
    confidence = torch.tensor([[0.2, 0.9, 0.2, 1.0, 0.9, -torch.inf]])
    assert select_stable(confidence, 5).tolist() == [[3, 1, 4, 0, 2]]


def test_the_order_is_total_whatever_the_ties() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        # Few distinct values, as bf16 confidences have.
        row = torch.randint(0, 4, (64,), generator=generator) / 4
        expected = sorted(range(64), key=lambda position: (-float(row[position]), position))
        assert select_stable(row[None], 64)[0].tolist() == expected


def test_upstream_picks_what_topk_picks_row_by_row() -> None:
    confidence = torch.stack([torch.full((128,), 0.5), torch.linspace(0, 1, 128)])
    expected = [torch.topk(row, k=9).indices.tolist() for row in confidence]
    assert select_upstream(confidence, 9).tolist() == expected
    assert select_upstream(confidence, 0).shape == (2, 0)


def test_guidance_moves_away_from_the_unconditional_logits() -> None:
    conditional, unconditional = torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[1.0, 2.0]]])
    guided = guide(torch.cat((conditional, unconditional)), 1.5)
    assert guided.tolist() == [[[6.0, -0.5]]]


def test_confidence_is_the_probability_of_the_candidate() -> None:
    logits = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [0.0, torch.log(torch.tensor(3.0)), -torch.inf, -torch.inf]]])
    confidence = confidence_of(logits, torch.tensor([[2, 1]]))
    assert confidence[0].tolist() == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_confidence_is_computed_in_the_dtype_of_the_logits(dtype: torch.dtype) -> None:
    assert confidence_of(torch.zeros(1, 2, 4, dtype=dtype), torch.zeros(1, 2, dtype=torch.long)).dtype == dtype


def test_logits_are_perturbed_in_double_precision() -> None:
    logits = torch.randn(2, 3, 5, dtype=torch.bfloat16)
    uniform = torch.rand(2, 3, 5, dtype=torch.float64)
    noisy = gumbel(logits, 0.7, uniform)
    assert noisy.dtype == torch.float64
    assert torch.equal(noisy, logits.double().exp() / (-uniform.log()) ** 0.7)


def test_the_noise_samples_from_the_softmax_of_the_logits() -> None:
    probabilities = torch.tensor([0.6, 0.3, 0.1])
    logits = probabilities.log().expand(1, 20_000, 3)
    uniform = torch.rand(logits.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = gumbel(logits, 1.0, uniform).argmax(-1)
    assert torch.bincount(drawn[0]) / 20_000 == pytest.approx(probabilities, abs=0.02)
