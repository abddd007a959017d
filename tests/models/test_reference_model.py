"""The embedded model: what it answers, what it weighs, and that its training can be repeated."""

import subprocess
import sys

import pytest
import torch

from difftrace.models.reference import reference_model_path
from difftrace.models.reference.card import model_card
from difftrace.models.reference.corpus import KINDS, held_out_examples
from difftrace.models.reference.evaluate import answers, correct
from difftrace.models.reference.objective import Batch, diffusion_loss, smoothing
from difftrace.models.reference.record import read_record
from difftrace.models.weights import open_checkpoint

FOLDER = reference_model_path()
DATA_FILES = ("config.json", "model.safetensors", "tokenizer.json", "training.json", "MODEL_CARD.md")
NOT_COMPARABLE = 3


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_prompts_are_answered(reference_model, kind):
    examples = held_out_examples(kind, 100, seed=1)
    assert correct(reference_model, examples) >= 95


def test_the_readme_sum_is_answered(reference_model):
    assert answers(reference_model, ["12 + 30 = "]) == ["42"]


def test_the_recorded_accuracy_is_at_least_95_percent():
    for score in read_record(FOLDER)["accuracy"].values():
        assert score["correct"] >= 0.95 * score["of"]


def test_the_model_fits_into_three_megabytes():
    assert sum((FOLDER / name).stat().st_size for name in DATA_FILES) <= 3_000_000


def test_the_committed_weights_are_the_recorded_ones():
    assert open_checkpoint(FOLDER).digest() == read_record(FOLDER)["weights"]


def test_the_model_card_is_the_one_the_record_gives():
    assert (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8") == model_card(read_record(FOLDER))


def test_any_text_can_be_encoded_and_printable_ascii_comes_back(reference_model):
    tokenizer = reference_model.tokenizer
    text = "".join(chr(code) for code in range(32, 127)) + "\n  two  spaces "
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("é\t") == [tokenizer.token_id("<|unk|>")] * 2


def test_fifty_steps_of_training_reach_the_recorded_digest():
    command = [sys.executable, "-m", "difftrace.models.reference", "check", "--short"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode == NOT_COMPARABLE:
        pytest.skip(run.stdout.strip())
    assert run.returncode == 0, run.stdout + run.stderr


def test_confidence_given_away_grows_with_the_distance_from_the_answer():
    given_away = smoothing(torch.arange(64))
    assert (given_away.diff() > 1e-3).all()
    assert 0 < given_away.min() < given_away.max() < 0.5


class Certain(torch.nn.Module):
    """A model that gives every token the same probability, and remembers what it was shown."""

    class config:  # noqa: N801
        mask_token_id = 0

    def forward(self, ids):
        self.seen = ids
        self.logits = torch.zeros((*ids.shape, 8))
        return self


def test_prompts_are_never_masked_and_the_loss_is_unbiased_in_the_ratio():
    model = Certain()
    batch = Batch(torch.full((4000, 10), 5), torch.full((4000,), 4))
    loss = diffusion_loss(model, batch, torch.Generator().manual_seed(0))
    assert (model.seen[:, :4] == 5).all()
    assert (model.seen[:, 4:] == 0).any()
    # Every answer place counts with expectation one whatever the ratio, so the mean loss is that of one place.
    assert loss.item() == pytest.approx(torch.log(torch.tensor(8.0)).item(), rel=0.05)
