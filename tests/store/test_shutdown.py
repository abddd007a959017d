"""What was queued when the program ends is stored, however it ends, short of kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from difftrace.store import BackgroundWriter, Record, Store, shutdown

Make = Callable[..., Record]
Finish = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and forks of POSIX")

QUEUE = """
import os, signal, sys, threading, warnings
from records import make_record
from difftrace.store import BackgroundWriter, Store

records = [make_record(number) for number in range(120)]
writer = BackgroundWriter(sys.argv[1], capacity=1000)
def queue():
    for record in records:
        writer.put(record)
def terminate():
    os.kill(os.getpid(), signal.SIGTERM)
    # Not signal.pause(), which would miss a signal that arrives just before it.
    while True:
        threading.Event().wait(0.01)
"""


def stored(path: Path) -> int:
    with Store(path) as store:
        assert store.verify_all() == []
        return store.count()


@pytest.mark.parametrize(
    ("ending", "status"),
    [("", 0), ("sys.exit(3)", 3), ("raise RuntimeError", 1), ("del writer, queue", 0)],
)
def test_the_end_of_the_program_loses_nothing(path: Path, finish: Finish, ending: str, status: int) -> None:
    done = finish(f"{QUEUE}\nqueue()\n{ending}", str(path))
    assert done.returncode == status, done.stderr
    assert stored(path) == 120


def test_a_failing_disk_at_the_end_of_the_program_is_said(path: Path, finish: Finish) -> None:
    done = finish(
        f"{QUEUE}\nimport resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))\n"
        "queue()",
        str(path),
    )
    assert "difftrace: " in done.stderr
    assert "queued records not stored: " in done.stderr
    assert "free space on its disk" in done.stderr


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_end_of_a_multiprocessing_child_loses_nothing(
    path: Path, tmp_path: Path, finish: Finish, method: str
) -> None:
    program = tmp_path / "children.py"
    program.write_text(
        "import multiprocessing, sys\n"
        "from records import make_record\n"
        "from difftrace.store import BackgroundWriter\n"
        "def work(file, name):\n"
        "    writer = BackgroundWriter(file)\n"
        "    for number in range(50):\n"
        "        writer.put(make_record(number, f'{name}/{number}'))\n"
        "if __name__ == '__main__':\n"
        "    file, method = sys.argv[1:]\n"
        "    context = multiprocessing.get_context(method)\n"
        "    children = [context.Process(target=work, args=(file, name)) for name in 'ab']\n"
        "    for child in children: child.start()\n"
        "    for child in children: child.join()\n"
        "    work(file, 'c')\n"
        "    print([child.exitcode for child in children])\n"
    )
    done = finish(program, str(path), method)
    assert done.returncode == 0, done.stderr
    assert stored(path) == 150


def test_sigterm_stores_what_is_queued_and_ends_the_process_as_ever(path: Path, finish: Finish) -> None:
    done = finish(f"{QUEUE}\nqueue()\nterminate()", str(path))
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert stored(path) == 120


def test_sigterm_with_nothing_queued_ends_the_process_as_ever(path: Path, finish: Finish) -> None:
    done = finish(f"{QUEUE}\nterminate()", str(path))
    assert done.returncode == -signal.SIGTERM, done.stderr


def test_a_handler_that_was_there_is_called_once_when_all_is_stored(path: Path, finish: Finish) -> None:
    handler = (
        "import signal, sys\n"
        "def mine(number, frame):\n"
        "    print('mine', writer.counters.pending, flush=True)\n"
        "    sys.exit(7)\n"
        "signal.signal(signal.SIGTERM, mine)\n"
    )
    done = finish(f"{handler}{QUEUE}\nqueue()\nterminate()", str(path))
    assert (done.returncode, done.stdout) == (7, "mine 0\n"), done.stderr
    assert stored(path) == 120


def test_a_handler_that_lets_the_program_go_on_may_store_more(path: Path, finish: Finish) -> None:
    program = (
        "import signal\n"
        "stop = []\n"
        "signal.signal(signal.SIGTERM, lambda *arguments: stop.append(1))\n"
        f"{QUEUE}\nqueue()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "while not stop: threading.Event().wait(0.01)\n"
        "writer.put(make_record(1000))\n"
        "print(len(stop))\n"
    )
    done = finish(program, str(path))
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert stored(path) == 121


def test_a_handler_put_over_ours_that_calls_it_works(path: Path, finish: Finish) -> None:
    program = (
        f"{QUEUE}\n"
        "ours = signal.getsignal(signal.SIGTERM)\n"
        "def theirs(number, frame):\n"
        "    print('theirs', flush=True)\n"
        "    ours(number, frame)\n"
        "signal.signal(signal.SIGTERM, theirs)\n"
        "second = BackgroundWriter(sys.argv[1])\n"
        "second.close()\n"
        "queue()\n"
        "terminate()\n"
    )
    done = finish(program, str(path))
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert done.stdout.startswith("theirs\n")
    assert stored(path) == 120


@pytest.mark.parametrize("first", ["loop", "writer"])
def test_an_event_loop_that_handles_sigterm_is_told_once(path: Path, finish: Finish, first: str) -> None:
    open_writer = "writer = BackgroundWriter(sys.argv[1], capacity=1000)"
    handle = "loop.add_signal_handler(signal.SIGTERM, told)"
    program = f"""
import asyncio, os, signal, sys
from records import make_record
from difftrace.store import BackgroundWriter

async def main():
    loop, calls, stop = asyncio.get_running_loop(), [], asyncio.Event()
    def told():
        calls.append(1)
        stop.set()
    {chr(10).join([handle, "    " + open_writer] if first == "loop" else [open_writer, "    " + handle])}
    for number in range(120):
        writer.put(make_record(number))
    os.kill(os.getpid(), signal.SIGTERM)
    await stop.wait()
    await asyncio.to_thread(writer.flush)
    await asyncio.sleep(0)
    await asyncio.to_thread(writer.close)
    print(len(calls))

asyncio.run(main())
"""
    done = finish(program, str(path))
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert stored(path) == 120


def test_an_ignored_sigterm_stays_ignored(path: Path, finish: Finish) -> None:
    program = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"{QUEUE}\nqueue()\nos.kill(os.getpid(), signal.SIGTERM)\nprint('alive')\n"
    )
    done = finish(program, str(path))
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
    assert stored(path) == 120


def test_sigterm_in_the_middle_of_a_transaction_of_the_same_file_does_not_lock_up(path: Path, finish: Finish) -> None:
    """The writer waits for the main thread, so the main thread must not wait for the writer."""
    program = (
        f"{QUEUE}\n"
        "with Store(sys.argv[1]) as store:\n"
        "    with store._database.writing():\n"
        "        queue()\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        for _ in range(1000): pass\n"
        "        print('left', flush=True)\n"
        "terminate()\n"
    )
    done = finish(program, str(path))
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "left\n"), done.stderr
    assert stored(path) == 120


def test_sigterm_while_put_waits_for_room_does_not_lock_up(path: Path, finish: Finish) -> None:
    program = (
        f"{QUEUE}\n"
        "writer.close()\n"
        "writer = BackgroundWriter(sys.argv[1], capacity=2)\n"
        "threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "number = 1000\n"
        "while True:\n"
        "    writer.put(make_record(number))\n"
        "    number += 1\n"
    )
    done = finish(program, str(path))
    assert done.returncode == -signal.SIGTERM, done.stderr
    stored(path)


def test_a_failing_disk_does_not_keep_the_process_alive(path: Path, finish: Finish) -> None:
    program = (
        f"{QUEUE}\n"
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))\n"
        "try: queue()\n"
        "except Exception: pass\n"
        "terminate()\n"
    )
    done = finish(program, str(path))
    assert done.returncode == -signal.SIGTERM
    assert "queued records not stored: " in done.stderr


@pytest.mark.parametrize(("handler", "status", "output"), [("", -signal.SIGTERM, ""), ("os._exit(9)", 9, "mine\n")])
def test_sigterm_while_the_interpreter_exits_waits_for_the_queue(
    path: Path, finish: Finish, handler: str, status: int, output: str
) -> None:
    program = (
        "import os, signal\n"
        "def mine(number, frame):\n"
        "    print('mine', flush=True)\n"
        f"    {handler}\n"
        f"if {handler!r}: signal.signal(signal.SIGTERM, mine)\n"
        f"{QUEUE}\n"
        "close = writer.close\n"
        "def closing():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    close()\n"
        "writer.close = closing\n"
        "queue()\n"
    )
    done = finish(program, str(path))
    assert (done.returncode, done.stdout) == (status, output), done.stderr
    assert stored(path) == 120


def test_a_later_writer_is_drained_although_an_earlier_one_was_closed_meanwhile(path: Path, finish: Finish) -> None:
    program = (
        "import signal\n"
        "called = []\n"
        "signal.signal(signal.SIGTERM, lambda *arguments: called.append(writer.pending))\n"
        f"{QUEUE}\n"
        "for turn in 1, 2:\n"
        "    queue()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    if turn == 1:\n"
        "        writer.close()\n"
        "    while len(called) < turn: threading.Event().wait(0.01)\n"
        "    if turn == 1:\n"
        "        writer = BackgroundWriter(sys.argv[1], capacity=1000)\n"
        "        records = [make_record(number) for number in range(1000, 1120)]\n"
        "print(called, signal.getsignal(signal.SIGTERM).__name__)\n"
    )
    done = finish(program, str(path))
    assert (done.returncode, done.stdout) == (0, "[0, 0] _on_sigterm\n"), done.stderr
    assert stored(path) == 240


def test_a_forked_child_neither_stores_nor_waits_for_what_the_parent_queued(path: Path, finish: Finish) -> None:
    program = (
        f"{QUEUE}\n"
        "warnings.simplefilter('ignore')\n"
        "queue()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    try: writer.put(records[0])\n"
        "    except Exception as error: print(error, flush=True)\n"
        "    writer.close()\n"
        "    with BackgroundWriter(sys.argv[1]) as own: own.put(make_record(1000))\n"
        "    sys.exit(5)\n"
        "status = os.waitpid(child, 0)[1]\n"
        "child = os.fork()\n"
        "if child == 0: terminate()\n"
        "print(os.waitstatus_to_exitcode(status), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = finish(program, str(path))
    assert done.returncode == 0, done.stderr
    message, statuses = done.stdout.splitlines()
    assert "belongs to the process that opened it; open another one after the fork" in message
    assert statuses == f"5 {-signal.SIGTERM}"
    assert stored(path) == 121


def test_the_previous_handler_returns_with_the_last_writer(path: Path) -> None:
    def previous(number: int, frame: object) -> None:
        raise AssertionError

    before = signal.signal(signal.SIGTERM, previous)
    try:
        first = BackgroundWriter(path)
        second = BackgroundWriter(path)
        assert signal.getsignal(signal.SIGTERM) is shutdown._on_sigterm
        first.close()
        assert signal.getsignal(signal.SIGTERM) is shutdown._on_sigterm
        second.close()
        assert signal.getsignal(signal.SIGTERM) is previous
        with BackgroundWriter(path, on_sigterm=False):
            assert signal.getsignal(signal.SIGTERM) is previous
    finally:
        signal.signal(signal.SIGTERM, before)
