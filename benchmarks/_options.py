"""Options that several benchmarks have; nothing here imports torch."""

from __future__ import annotations

import argparse


def add_model_options(parser: argparse.ArgumentParser, *, config: str = "reference", others: str = "") -> None:
    """Add the options that `_models.build` and `_models.build_loaded` read."""
    models = f"{others}reference, llada-8b, or a model folder"
    parser.add_argument("--config", default=config, help=f"{models} (default: {config})")
    parser.add_argument("--init", choices=("stored", "random"), default="stored", help="where the weights come from")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the size of a run."""
    parser.add_argument("--prompt-length", type=int, default=16, metavar="P")
    parser.add_argument("--gen-length", type=int, default=32, metavar="L")
    parser.add_argument("--steps", type=int, default=32, metavar="T")
    parser.add_argument("--block-length", type=int, default=16, metavar="B")
