"""Any loop that calls its model once a step and returns its canvases."""

from __future__ import annotations

from difftrace.capture.adapter import LoopAdapter

ADAPTER = LoopAdapter()
