"""Native LLaDA: the published architecture, its checkpoints and tokenizers, with no remote code."""

from difftrace.models.loading import LoadedModel, load_model

__all__ = ["LoadedModel", "load_model"]
