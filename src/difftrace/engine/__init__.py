"""The DiffTrace paper's engine: store what a `TrajectoryCapture` captured, and replay it by request id."""

from difftrace.engine.engine import DiffTraceEngine
from difftrace.engine.replay import Mismatch, ReplayResult, replay_record

__all__ = ["DiffTraceEngine", "Mismatch", "ReplayResult", "replay_record"]
