"""All logits of a run, kept on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from difftrace.core.errors import SamplerError
from difftrace.models import LoadedModel
from difftrace.sampling import generate

SHAPE: dict[str, Any] = {"steps": 3, "gen_length": 4, "block_length": 4, "record": "logits"}


@pytest.mark.parametrize(("cfg_scale", "passes"), [(0.0, 1), (1.5, 2)])
def test_each_row_has_what_the_model_returned_for_it_without_padding(
    conformance_model: LoadedModel, cfg_scale: float, passes: int
) -> None:
    returned: list[Tensor] = []

    def model(ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        output = conformance_model.model(ids, attention_mask=attention_mask)
        returned.append(output.logits.clone())
        return output

    model.config = conformance_model.config  # type: ignore[attr-defined]
    prompt, mask = torch.tensor([[300, 300, 5], [1, 2, 3]]), torch.tensor([[0, 0, 1], [1, 1, 1]])
    # EOS is forbidden to the sampler, not to the record.
    logits = generate(model, prompt, attention_mask=mask, cfg_scale=cfg_scale, logits_eos_inf=True, **SHAPE).logits
    width = conformance_model.config.embedding_size
    assert [tuple(row.shape) for row in logits] == [(3, passes, 5, width), (3, passes, 7, width)]
    for row, padding in enumerate((2, 0)):
        for step in range(3):
            for part in range(passes):
                assert torch.equal(logits[row][step, part], returned[step][2 * part + row, padding:])


def test_they_keep_the_models_precision_and_survive_reused_memory(scripted: Callable[..., Any]) -> None:
    memory = torch.zeros(1, 5, 10, dtype=torch.bfloat16)
    model = scripted(lambda ids, forward: memory.fill_(forward))
    (logits,) = generate(model, torch.tensor([[1]]), **SHAPE).logits
    assert logits.dtype == torch.bfloat16
    assert logits[:, 0, 0, 0].tolist() == [0, 1, 2]


def test_more_than_the_memory_holds_is_refused_before_it_is_filled(
    constant_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("difftrace.sampling.logits._available_memory", lambda: 599)
    with pytest.raises(SamplerError, match=r"needs 0\.0 GiB of host memory for 3 steps of \[1, 1, 5, 10\]"):
        generate(constant_model, torch.tensor([[1]]), **SHAPE)
    assert len(constant_model.inputs) == 1
    monkeypatch.setattr("difftrace.sampling.logits._available_memory", lambda: 600)
    assert generate(constant_model, torch.tensor([[1]]), **SHAPE).logits[0].shape == (3, 1, 5, 10)
