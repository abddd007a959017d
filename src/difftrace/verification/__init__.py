"""What re-executes a model in order to record or verify."""

from difftrace.verification.runner import ModelRunner

__all__ = ["ModelRunner"]
