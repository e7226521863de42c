"""The queue in front of a policy: batches of what waits, as many at once as there is someone to answer.

A request is taken when someone is free, together with all that wait by then. Nothing waits for a batch to be full, but
for the moment that `gather` allows: those who were answered together ask again almost together, and if the first of
them were taken alone, all others would wait for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from schemas.errors import VPPError

_Q = TypeVar("_Q")
_A = TypeVar("_A")


class QueueFull(VPPError):
    """As many requests wait as may wait."""


@dataclass(frozen=True)
class Answered(Generic[_A]):
    """An answer, and how it came about.

    Attributes:
        value: The answer.
        waited_s: Until its batch was begun.
        took_s: Of the batch that it was in.
        batch: Requests of that batch.
    """

    value: _A
    waited_s: float
    took_s: float
    batch: int


@dataclass(eq=False)
class _Waiting(Generic[_Q, _A]):
    request: _Q
    answer: asyncio.Future[Answered[_A]]
    since: float


class BatchQueue(Generic[_Q, _A]):
    """Collects requests while all who answer are busy.

    For one event loop.

    Args:
        answer: Answers at most `batch_size` requests, in order.
        batch_size: At most so many are answered together.
        num_at_once: Batches that are answered at the same time.
        max_waiting: Requests that may wait beside those that are being answered; None for any number.
    """

    def __init__(
        self,
        answer: Callable[[list[_Q]], Awaitable[Sequence[_A]]],
        batch_size: int,
        num_at_once: int,
        max_waiting: int | None = None,
    ) -> None:
        self._answer, self._batch_size, self._free, self._max_waiting = answer, batch_size, num_at_once, max_waiting
        self._waiting: list[_Waiting[_Q, _A]] = []
        self._answering: set[asyncio.Task[None]] = set()  # the loop itself keeps no task alive
        self._num_answering = 0
        self._timer: asyncio.TimerHandle | None = None
        self.gather(0.0, lambda: 0)

    def gather(self, gather_s: float, num_askers: Callable[[], int]) -> None:
        """Lets a batch that is not full wait for those who may ask too, until none has come for `gather_s`.

        Only the last who is free waits: while others are, requests are better spread.

        Args:
            gather_s: 0 for no wait.
            num_askers: How many there are that ask one thing at a time; when all have asked, nothing is waited for.
        """
        self._gather_s, self._num_askers = gather_s, num_askers

    @property
    def num_waiting(self) -> int:
        """Requests that nobody has taken yet."""
        return len(self._waiting)

    async def ask(self, request: _Q) -> Answered[_A]:
        """The answer to a request; one that is cancelled while it waits is never put to the policy.

        Raises:
            QueueFull: At once, if too many wait.
            Exception: Whatever the batch with the request ended with.
        """
        if self._max_waiting is not None and not self._free and len(self._waiting) >= self._max_waiting:
            raise QueueFull(f"expected at most {self._max_waiting} requests to wait, found as many; ask again later")
        asked = _Waiting[_Q, _A](request, asyncio.get_running_loop().create_future(), time.perf_counter())
        self._waiting.append(asked)
        self._dispatch()
        try:
            return await asked.answer
        except asyncio.CancelledError:
            if asked in self._waiting:
                self._waiting.remove(asked)
            raise

    def _dispatch(self, has_gathered: bool = False) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and self._free:
            loop = asyncio.get_running_loop()
            if not has_gathered and self._may_grow():
                self._timer = loop.call_later(self._gather_s, self._dispatch, True)
                return
            batch, self._waiting = self._waiting[: self._batch_size], self._waiting[self._batch_size :]
            self._free -= 1
            self._num_answering += len(batch)
            task = loop.create_task(self._answer_batch(batch))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    def _may_grow(self) -> bool:
        if not self._gather_s or self._free > 1:
            return False
        return len(self._waiting) < min(self._batch_size, self._num_askers() - self._num_answering)

    async def _answer_batch(self, batch: list[_Waiting[_Q, _A]]) -> None:
        started = time.perf_counter()
        try:
            values = await self._answer([asked.request for asked in batch])
            if len(values) != len(batch):
                raise RuntimeError(f"expected an answer to each of {len(batch)} requests, found {len(values)}")
        except Exception as error:  # whatever it is, those who wait have to know
            for asked in batch:
                if not asked.answer.done():
                    asked.answer.set_exception(error)
        else:
            took_s = time.perf_counter() - started
            for asked, value in zip(batch, values, strict=True):
                if not asked.answer.done():  # one who is gone waits no more
                    asked.answer.set_result(Answered(value, started - asked.since, took_s, len(batch)))
        finally:
            self._free += 1
            self._num_answering -= len(batch)
            self._dispatch()
