"""Store records both ways, reading in between what others stored: store_many.py FILE PROCESS COUNT."""

from __future__ import annotations

import random
import sys

from records import make_record

from difftrace.store import BackgroundWriter, Store


def main(file: str, process: int, count: int) -> None:
    rng = random.Random(process)
    with Store(file) as store, BackgroundWriter(file) as writer:
        for number in range(count):
            record = make_record(number, f"process-{process}/{number}")
            if number % 2:
                store.put(record)
            else:
                writer.put(record)
            # Each process stores its odd records in order, so that what an odd one follows is there.
            other = f"process-{rng.randrange(8)}/{max(1, number - 2 + number % 2)}"
            if rng.random() < 0.2 and other in store:
                assert store.get(other) == make_record(int(other.rpartition("/")[2]), other)
        writer.flush()


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
