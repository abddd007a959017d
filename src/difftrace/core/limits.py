"""Sizes beyond which a trajectory or a file is refused instead of allocated.

They are far above real runs (LLaDA: 4,096 positions; DiffusionGemma: 256 positions rewritten in 48 steps) and
low enough that hostile bytes cannot take more than a few hundred megabytes.
"""

from __future__ import annotations

from typing import Final

MAX_CANVAS: Final = 1 << 20
"""Most positions of a canvas, and most tokens of a prompt."""

MAX_STEPS: Final = 1 << 20
"""Most denoising steps of one trajectory."""

MAX_EVENTS: Final = 1 << 22
"""Most committed tokens of one trajectory."""

MAX_TOKEN: Final = (1 << 31) - 1
"""Largest token id."""

MAX_BASELINE_BYTES: Final = 16 << 20
"""Largest baseline file, in bytes."""

MAX_BASELINE_NUMBERS: Final = 1 << 23
"""Most prompt tokens, canvas positions, events and numbers of evidence of all sequences of a baseline together."""

MAX_EVIDENCE_NUMBERS: Final = 1 << 22
"""Most numbers of the evidence of one trajectory: 80,000 steps that commit one token each."""

MAX_LAYERS_BYTES: Final = 64 << 20
"""Largest layers file, in bytes; that of a model of LLaDA-8B's 32 layers takes 0.6 MB."""

MAX_PROBE_BYTES: Final = 64 << 20
"""Most bytes that all probes of a baseline expand to; one of 32 layers takes 0.4 MB."""

MAX_LOGITS_VOCABULARY: Final = 1 << 24
"""Largest vocabulary of recorded logits, and most values decoded at once."""

MAX_LOGITS_CHUNKS: Final = 1 << 22
"""Most chunks of a file of logits: 4 TB of LLaDA's in bfloat16."""

MAX_REPORT_BYTES: Final = 256 << 20
"""Largest report file, in bytes; 2,000 failed checks with their texts take about 12 MB."""

MAX_PROMPTS_BYTES: Final = 256 << 20
"""Largest file of prompts, in bytes."""
