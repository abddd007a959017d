"""Queue records and flush now and then, saying what is acknowledged: queue_until_killed.py FILE SEED."""

from __future__ import annotations

import random
import sys

from records import make_record

from difftrace.store import BackgroundWriter


def main(file: str, seed: int) -> None:
    rng = random.Random(seed)
    with BackgroundWriter(file, capacity=64) as writer:
        for number in range(10**9):
            writer.put(make_record(number, f"{seed}/{number}"))
            if rng.random() < 0.05:
                writer.flush()
                print(number, flush=True)


main(sys.argv[1], int(sys.argv[2]))
