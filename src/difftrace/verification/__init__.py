"""What re-executes a model in order to record or verify."""

from difftrace.verification.deferred import DeferredRunner
from difftrace.verification.runner import ModelRunner

__all__ = ["DeferredRunner", "ModelRunner"]
