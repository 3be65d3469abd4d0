"""Text for many at once, on one thread: a queue, a few slots that take turns token by token, and cancelling.

One thread computes, for a small model runs no faster on two. The event loop of the server hands in a `Job`, and
reads what becomes of it. Who waits is told the place in the queue; who goes away is forgotten at the next token.
"""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mamegpt.errors import MamegptError, ModelError
from mamegpt.generation.settings import Sampling
from mamegpt.generation.stream import Token
from mamegpt.playground import catalog
from mamegpt.playground.catalog import Entry, entries, listed
from mamegpt.pretrained import Pretrained, load

__all__ = ["MAX_TEXTS", "MAX_WAITING", "CompletionRequest", "Engine", "Failed", "Job", "NewToken", "Queued", "n_read"]

MAX_TEXTS = 8
"""Texts written at the same time, and in one request. Each holds its own keys and values."""
MAX_WAITING = 1000
"""Requests that may wait; a further one is refused."""
NOTIFY_EVERY_S = 0.02
"""Seconds between two calls to the event loop, each of which makes the two threads trade places."""
MAX_LOADED = 4
"""Models kept in memory; the one that was used longest ago makes room."""


@dataclass(frozen=True, kw_only=True)
class CompletionRequest:
    """What is asked for: ``n`` continuations of each prompt, in the order of the prompts.

    The i-th of all texts is sampled with ``sampling.of_text(i)``.
    """

    model: str
    prompts: Sequence[str]
    n: int
    max_tokens: int
    sampling: Sampling
    n_alternatives: int | None = None
    messages: Sequence[tuple[str, str]] | None = None
    """The conversation to answer, instead of prompts: pairs of a role and a text."""
    at_start: bool | None = None
    """Whether the prompts begin a text; None: if the model was trained with such beginnings."""
    stream: bool = False
    """Whether to answer in parts; ``with_usage`` asks for a last one that counts tokens."""
    with_usage: bool = False

    @property
    def n_texts(self) -> int:
        """Continuations in all."""
        return len(self.prompts) * self.n


class Queued(NamedTuple):
    """The job waits; ``position`` is 1 if it is next."""

    position: int


class NewToken(NamedTuple):
    """The text number ``number`` went on by a token, or ended. ``loaded`` is the model that wrote it."""

    number: int
    token: Token
    loaded: Pretrained


class Failed(NamedTuple):
    """Nothing more will come. ``error`` is a user's mistake, or None for one of ours."""

    error: MamegptError | None


STOPPED = Failed(ModelError("the server was stopped"))
JobEvent = Queued | NewToken | Failed


class Job:
    """A request that was handed in: events come from the engine's thread and are read in the event loop."""

    def __init__(self, request: CompletionRequest, entry: Entry) -> None:
        self.request, self.entry = request, entry
        self.loop = asyncio.get_running_loop()
        self.cancelled = False
        self.events: deque[JobEvent] = deque()
        self.ready = asyncio.Event()

    async def first(self) -> JobEvent:
        """Return the first event, which `batches` returns, too: `Failed` for a request that the model cannot read."""
        await self.ready.wait()
        return self.events[0]

    async def batches(self) -> AsyncIterator[list[JobEvent]]:
        """Return what has happened since the last time, until all texts have ended."""
        left = self.request.n_texts
        while left:
            await self.ready.wait()
            self.ready.clear()
            batch = [self.events.popleft() for _ in range(len(self.events))]
            yield batch
            left -= sum(isinstance(event, NewToken) and event.token.finish is not None for event in batch)
            if any(isinstance(event, Failed) for event in batch):
                return


class Engine:
    """The thread and its queue. ``models`` are those of `catalog.entries`."""

    def __init__(self, models: Sequence[str]) -> None:
        self.models = models
        self._loaded: OrderedDict[Entry, Pretrained] = OrderedDict()
        self._answers: dict[Entry, bool] = {}
        self._unchecked: deque[Job] = deque()
        self._waiting: deque[Job] = deque()
        self._running: deque[tuple[Job, Iterator[None]]] = deque()
        self._news: set[Job] = set()
        self._notified_s = 0.0
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to work; what is handed in before waits."""
        self._thread.start()

    def stop(self) -> None:
        """Tell all jobs that the server ends, and compute no further token."""
        with self._changed:
            self._closed = True
            for job in [*self._unchecked, *self._waiting, *(job for job, _ in self._running)]:
                self._put(job, STOPPED)
                job.cancelled = True
            self._notify()
            self._changed.notify()

    def close(self) -> None:
        """Wait until the thread has ended."""
        self.stop()
        self._thread.join()

    def open(self) -> Entry:
        """Load each model that was named, or else the best, and return the one that an empty name means.

        Raises what `catalog.entries` and `load` raise.
        """
        for name in self.models:
            self._load(entries([name])[0])
        best = self.find("")
        self._load(best)
        return best

    def submit(self, request: CompletionRequest, entry: Entry) -> Job | None:
        """Hand in a request for a model that was found, from within an event loop; None if too many wait already."""
        job = Job(request, entry)
        with self._changed:
            if len(self._unchecked) + len(self._waiting) >= MAX_WAITING:
                return None
            self._unchecked.append(job)
            if self._closed:
                self._put(job, STOPPED)
                self._notify()
            self._changed.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Forget a job, wherever it is."""
        with self._changed:
            job.cancelled = True
            if job in self._unchecked:
                self._unchecked.remove(job)
            if job in self._waiting:
                self._waiting.remove(job)
                self._send_positions()

    def status(self) -> dict[str, int]:
        """Return how many requests run and wait."""
        with self._changed:
            return {"running": len(self._running), "waiting": len(self._waiting)}

    def find(self, name: str) -> Entry:
        """Return the entry of that name; empty: the best. Raises `ModelError` if there is none."""
        found = entries(self.models) if name else listed(self.models)
        for entry in found:
            if name in ("", entry.name):
                return entry
        raise ModelError(
            "no model {name!r}; choose from: {names}", name=name, names=", ".join(entry.name for entry in found)
        )

    def answers(self, entry: Entry) -> bool:
        """Return whether a model was tuned to answer; of one on the Hub it is known once it was loaded."""
        return self._answers.get(entry) or catalog.answers(entry)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._running or self._waiting or self._unchecked)
                if self._closed:
                    return
                self._admit()
                new = self._unchecked.popleft() if self._unchecked else None
            if new is not None and self._turn(new, self._check(new)):
                self._enqueue(new)
            if self._running:
                job, turns = self._running[0]
                alive = not job.cancelled and self._turn(job, turns)
                with self._changed:
                    self._running.rotate(-1)
                    if not alive:
                        self._running.pop()
            with self._changed:
                self._notify()

    def _enqueue(self, job: Job) -> None:
        with self._changed:
            if not job.cancelled:
                self._waiting.append(job)
                self._put(job, Queued(len(self._waiting)))

    def _put(self, job: Job, event: JobEvent) -> None:
        """Lay an event out for the event loop, which hears of it at the next `_notify`; a cancelled job gets none."""
        with self._changed:
            if not job.cancelled:
                job.events.append(event)
                self._news.add(job)

    def _notify(self) -> None:
        """Wake the event loop, if it has slept long enough or nothing else will."""
        now = time.monotonic()
        if self._news and (now - self._notified_s >= NOTIFY_EVERY_S or not self._running or self._closed):
            self._notified_s = now
            news, self._news = self._news, set()
            next(iter(news)).loop.call_soon_threadsafe(_wake, news)

    def _admit(self) -> None:
        """Let waiting jobs in, in order, while there is room for all their texts."""
        n_before = len(self._waiting)
        n_texts = sum(job.request.n_texts for job, _ in self._running)
        while self._waiting and n_texts + self._waiting[0].request.n_texts <= MAX_TEXTS:
            job = self._waiting.popleft()
            n_texts += job.request.n_texts
            self._running.append((job, self._write(job)))
        if len(self._waiting) < n_before:
            self._send_positions()

    def _send_positions(self) -> None:
        for position, job in enumerate(self._waiting, start=1):
            self._put(job, Queued(position))

    def _turn(self, job: Job, turns: Iterator[None]) -> bool:
        """Go on with a job by one token; false if it has ended."""
        try:
            next(turns)
            return True
        except StopIteration:
            return False
        except MamegptError as error:
            self._put(job, Failed(error))
        except Exception:  # a bug of ours ends one job, not everyone's
            traceback.print_exc()
            self._put(job, Failed(None))
        return False

    def _check(self, job: Job) -> Iterator[None]:
        """Yield once if the model can read what it is asked. Raises as `n_read`, and what `load` raises."""
        n_read(self._load(self.find(job.entry.name)), job.request)
        yield

    def _write(self, job: Job) -> Iterator[None]:
        """Yield all turns of a job: a token of each of its texts in rotation."""
        request = job.request
        loaded = self._load(self.find(job.entry.name))  # while it waited, a run may have replaced its checkpoint
        prompts = [prompt for prompt in request.prompts for _ in range(request.n)]
        texts = deque(
            (i, self._tokens(loaded, request, prompt, request.sampling.of_text(i))) for i, prompt in enumerate(prompts)
        )
        while texts:
            number, tokens = texts.popleft()
            token = next(tokens)
            self._put(job, NewToken(number, token, loaded))
            if token.finish is None:
                texts.append((number, tokens))
            yield

    @staticmethod
    def _tokens(loaded: Pretrained, request: CompletionRequest, prompt: str, sampling: Sampling) -> Iterator[Token]:
        if request.messages is not None:
            return loaded.stream_answer(
                request.messages,
                max_new_tokens=request.max_tokens,
                n_alternatives=request.n_alternatives,
                sampling=sampling,
            )
        return loaded.stream_tokens(
            prompt,
            max_new_tokens=request.max_tokens,
            n_alternatives=request.n_alternatives,
            at_start=request.at_start,
            sampling=sampling,
        )

    def _load(self, entry: Entry) -> Pretrained:
        """Return the model of an entry, from memory if it is still the same."""
        if entry not in self._loaded:
            self._loaded[entry] = load(entry.path, device="cpu")
            self._answers[entry] = self._loaded[entry].answers
        self._loaded.move_to_end(entry)
        while len(self._loaded) > MAX_LOADED:
            self._loaded.popitem(last=False)
        return self._loaded[entry]


def n_read(loaded: Pretrained, request: CompletionRequest) -> int:
    """Return how many tokens a model reads, each prompt once whatever ``n`` is.

    Raises `ConfigError` if the model cannot read them, `ModelError` if it does not answer conversations.
    """
    if request.messages is not None:
        return len(loaded.chat_ids(request.messages, max_new_tokens=request.max_tokens))
    return sum(len(loaded.prompt_ids(prompt, at_start=request.at_start)) for prompt in request.prompts)


def _wake(jobs: Collection[Job]) -> None:
    for job in jobs:
        job.ready.set()
