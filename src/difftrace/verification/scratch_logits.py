"""Files of logits that last as long as the run they belong to."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path

from difftrace.core.logits_codec import Method
from difftrace.sampling import Generation, LogitsTarget


def with_scratch_logits(generate: Callable[..., Generation], method: Method) -> Generation:
    """Return what `generate(record=, logits_to=)` gives, with its logits in a file of a temporary folder.

    The folder goes when nothing refers to the file any more, at the end of the interpreter at the latest.
    """
    folder = Path(tempfile.mkdtemp(prefix="difftrace-"))
    try:
        made = generate(record="logits", logits_to=LogitsTarget(folder / "run.logits", method))
        assert made.logits_file is not None
        weakref.finalize(made.logits_file, shutil.rmtree, folder, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return made
