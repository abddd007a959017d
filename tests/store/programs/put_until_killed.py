"""Store, replace, delete and vacuum at random until killed, saying before each step what it is and after it that it
is done: put_until_killed.py FILE SEED. Odd seeds leave the disk to the system, which a kill must not show."""

from __future__ import annotations

import json
import random
import sys

from records import make_record

from difftrace.store import Store


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def main(file: str, seed: int) -> None:
    rng = random.Random(seed)
    with Store(file, durability="process" if seed % 2 else "power") as store:
        known = [entry.request_id for entry in store.entries()]
        for step in range(10**9):
            kind = rng.choice(["put", "put", "many", "many", "replace", "delete", "vacuum"])
            if kind in ("replace", "delete") and not known:
                continue
            if kind == "vacuum":
                store.vacuum()
                continue
            if kind == "delete":
                gone = rng.choice(known)
                say(will={gone: None})
                store.delete(gone)
                known.remove(gone)
            else:
                names = [f"{seed}/{step}/{row}" for row in range({"put": 1, "many": rng.randint(2, 40)}.get(kind, 0))]
                records = [make_record(rng.randrange(10**6), name) for name in names or [rng.choice(known)]]
                say(will={record.request_id: record.digest for record in records})
                store.put_many(records, replace=True)
                known += names
            say(done=step)


main(sys.argv[1], int(sys.argv[2]))
