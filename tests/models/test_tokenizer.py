"""Tokenizers: the quick way where it suffices, transformers where it is needed, one interface."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from difftrace.core.errors import ModelError
from difftrace.models.tokenizer import (
    FastTokenizer,
    Tokenizer,
    TransformersTokenizer,
    load_tokenizer,
    tokenizer_digest,
)

WriteTokenizer = Callable[..., None]


@pytest.fixture(params=["tokenizers", "transformers"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path, write_tokenizer: WriteTokenizer) -> Tokenizer:
    write_tokenizer(tmp_path)
    expected: type = FastTokenizer
    if request.param == "transformers":
        pytest.importorskip("transformers")
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<eos>", "add_bos_token": True}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        # As in the published checkpoints: the model's own code is named, and must not be needed.
        auto_map = {"AutoConfig": "configuration_llada.LLaDAConfig"}
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "llada", "auto_map": auto_map}))
        expected = TransformersTokenizer
    loaded = load_tokenizer(tmp_path)
    assert isinstance(loaded, expected)
    return loaded


def test_text_goes_to_ids_and_back_without_special_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("w3 w5") == [3, 5]
    assert tokenizer.decode([3, 38, 5, 39]) == "w3 w5"


def test_one_id_is_shown_also_when_it_is_special(tokenizer: Tokenizer) -> None:
    assert tokenizer.piece(3) == "w3"
    assert tokenizer.piece(39) == "<mask>"


def test_a_token_is_found_by_its_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.token_id("<|eot_id|>") == 37
    assert tokenizer.token_id("<|nothing|>") is None


def test_a_bare_checkpoint_has_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert load_tokenizer(tmp_path) is None
    assert tokenizer_digest(tmp_path) is None


@pytest.mark.parametrize("settings", [None, "{}"])
def test_a_broken_tokenizer_is_named(tmp_path: Path, settings: str | None) -> None:
    (tmp_path / "tokenizer.json").write_text("{ not json")
    if settings is not None:
        (tmp_path / "tokenizer_config.json").write_text(settings)
    with pytest.raises(ModelError, match="tokenizer"):
        load_tokenizer(tmp_path)


def test_the_digest_follows_names_and_contents_of_the_tokenizers_files(
    tmp_path: Path, write_tokenizer: WriteTokenizer
) -> None:
    write_tokenizer(tmp_path)
    plain = tokenizer_digest(tmp_path)
    assert plain is not None
    (tmp_path / "model.safetensors").write_bytes(b"1")
    assert tokenizer_digest(tmp_path) == plain
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with_settings = tokenizer_digest(tmp_path)
    (tmp_path / "tokenizer_config.json").rename(tmp_path / "special_tokens_map.json")
    renamed = tokenizer_digest(tmp_path)
    write_tokenizer(tmp_path, eot=36)
    assert len({plain, with_settings, renamed, tokenizer_digest(tmp_path)}) == 4


def test_a_folder_with_tokenizer_json_alone_is_loaded_without_importing_transformers(
    tmp_path: Path, write_tokenizer: WriteTokenizer
) -> None:
    write_tokenizer(tmp_path)
    program = (
        "import sys, pathlib\n"
        "from difftrace.models.tokenizer import load_tokenizer\n"
        "assert load_tokenizer(pathlib.Path(sys.argv[1])).encode('w3') == [3]\n"
        "print('transformers' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("False", 0), done.stderr
