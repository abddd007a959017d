"""Recording denoising loops written elsewhere: what a loop shows of itself, turned into trajectories."""

from difftrace.capture.adapter import Adapter, Final, Forward, Look, LoopAdapter
from difftrace.capture.captured import Captured
from difftrace.capture.recorder import Recorder, record

__all__ = ["Adapter", "Captured", "Final", "Forward", "Look", "LoopAdapter", "Recorder", "record"]
