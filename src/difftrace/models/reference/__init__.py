"""The embedded reference model: a small LLaDA on generated text, so that the product runs offline."""

from __future__ import annotations

from pathlib import Path


def reference_model_path() -> Path:
    """Return the folder of the embedded model; it holds config, weights, tokenizer and model card."""
    return Path(__file__).parent
