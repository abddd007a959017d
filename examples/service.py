"""A service that keeps, for every request, the trajectory that led to its answer, and verifies any of them by its id.

    python examples/service.py [--requests N] [--folder FOLDER]

Requests arrive one by one; a loop, as those of vLLM and the like, takes those that wait, denoises them as one batch in
a thread and hands each its row. The trajectories of a batch are queued for the background writer, so that no answer
waits for the disk. Afterwards every request is replayed (do its events lead to what was served?) and two are verified
(does the model decide so again?). The last one is served wrongly on purpose, and found.

`docs/services.md` shows the same behind FastAPI.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import torch

from difftrace import Divergence, Trajectory, compare
from difftrace.engine import ReplayResult, replay_record
from difftrace.models import load_model
from difftrace.models.reference import reference_model_path
from difftrace.sampling import generate
from difftrace.store import BackgroundWriter, Record, Store

MODEL = "difftrace-reference"
ARGUMENTS = {"steps": 16, "gen_length": 16, "block_length": 8, "temperature": 0.0}
MOST_IN_A_BATCH = 8


@dataclass(frozen=True)
class Request:
    """One request on its way; `answer` is what its handler awaits."""

    request_id: str
    prompt: list[int]
    answer: asyncio.Future[list[int]]


class Service:
    """The model, the requests that wait for it, and the store."""

    def __init__(self, path: Path) -> None:
        loaded = load_model(reference_model_path(), device="cpu")
        assert loaded.tokenizer is not None
        self.model, self.tokenizer = loaded.model, loaded.tokenizer
        # Opened in the main thread, so that SIGTERM writes what is queued before the process ends.
        self.writer = BackgroundWriter(path, capacity=1024, overflow="block")
        self.store = Store(path)
        self.waiting: asyncio.Queue[Request] = asyncio.Queue()

    async def answer(self, text: str) -> tuple[str, str]:
        """Handle one request: return its id and its answer."""
        request = Request(f"chat/{uuid4()}", self.tokenizer.encode(text), asyncio.get_running_loop().create_future())
        await self.waiting.put(request)
        return request.request_id, self.tokenizer.decode(await request.answer)

    async def serve(self) -> None:
        """Take what waits, again and again."""
        while True:
            requests = [await self.waiting.get()]
            while len(requests) < MOST_IN_A_BATCH and not self.waiting.empty():
                requests.append(self.waiting.get_nowait())
            # Rows of one length need no padding.
            for length in {len(request.prompt) for request in requests}:
                batch = [request for request in requests if len(request.prompt) == length]
                try:
                    outputs = await asyncio.to_thread(self.denoise, batch)
                except Exception as error:
                    # The handlers raise it, and the loop serves on.
                    for request in batch:
                        if not request.answer.done():
                            request.answer.set_exception(error)
                else:
                    for request, output in zip(batch, outputs, strict=True):
                        # Done already where the client went away; what was generated for it is stored all the same.
                        if not request.answer.done():
                            request.answer.set_result(output)

    def denoise(self, batch: list[Request]) -> list[list[int]]:
        """Denoise a batch, and queue one record for each of its requests before anyone is answered."""
        generation = generate(
            self.model, torch.tensor([request.prompt for request in batch]), record="decisions", **ARGUMENTS
        )
        outputs = generation.tokens[:, len(batch[0].prompt) :].tolist()
        for request, trajectory, output in zip(batch, generation.trajectories, outputs, strict=True):
            # Raises where an earlier record could not be written: better no answer than one without provenance.
            self.writer.put(Record(request.request_id, trajectory, output, MODEL, ARGUMENTS))
        return outputs

    def replay(self, request_id: str) -> ReplayResult:
        """Say whether the stored events lead to the stored answer; no model runs."""
        self.writer.flush()
        return replay_record(self.store.get(request_id))

    def verify(self, request_id: str) -> Divergence | None:
        """Run the model again and return the first decision that differs."""
        self.writer.flush()
        record = self.store.get(request_id)
        return compare(record.trajectory, self.again(record.trajectory))

    def again(self, stored: Trajectory) -> Trajectory:
        """Denoise the prompt of a stored run once more, alone."""
        prompt = torch.tensor([stored.prompt.tolist()])
        return generate(self.model, prompt, record="decisions", **ARGUMENTS).trajectories[0]

    def close(self) -> None:
        """Write what is queued, then close."""
        try:
            self.writer.close()
        finally:
            self.store.close()


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[Service]:
    """Yield a service whose loop runs."""
    service = Service(path)
    loop = asyncio.create_task(service.serve())
    try:
        yield service
    finally:
        loop.cancel()
        with suppress(asyncio.CancelledError):
            await loop
        await asyncio.to_thread(service.close)


async def demonstrate(path: Path, requests: int) -> None:
    """Send requests that run into one another, then look at all of them."""
    async with running(path) as service:
        questions = [f"{10 + number % 40} + {30 + number % 50} = " for number in range(requests)]
        answers = await asyncio.gather(*(service.answer(question) for question in questions))
        for question, (request_id, text) in list(zip(questions, answers, strict=True))[:3]:
            print(f"{request_id}: {question}{text.split(chr(10))[0]}")
        results = [service.replay(request_id) for request_id, _ in answers]
        print(f"replayed {len(results)}, exact {sum(result.exact_match for result in results)}")
        for request_id, _ in (answers[0], answers[-1]):
            found = service.verify(request_id)
            print(f"verified {request_id}: {'the same decisions' if found is None else found}")

        good = service.store.get(answers[-1][0])
        assert good.output is not None
        output = good.output.copy()
        output[3] += 1
        service.writer.put(Record("chat/wrong", good.trajectory, output, MODEL, ARGUMENTS))
        print(f"chat/wrong: {service.replay('chat/wrong').reason}")
    with Store(path, read_only=True) as store:
        print(f"stored {store.count()}, problems {len(store.verify_all())}")


def at_least_one(text: str) -> int:
    """Return the value of an option, for argparse."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return number


def main() -> None:
    """Run the example in a folder that is removed afterwards, or in the given one."""
    parser = argparse.ArgumentParser(description="A service with one stored trajectory for each request.")
    parser.add_argument("--requests", type=at_least_one, default=24, metavar="N")
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="keep the store there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder if options.folder is not None else Path(scratch)
        asyncio.run(demonstrate(folder / "requests.difftrace", options.requests))


if __name__ == "__main__":
    main()
