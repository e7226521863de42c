"""What waits is answered together; too many are refused at once; a fault reaches those who asked, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from vpp.policy.batch_queue import BatchQueue, QueueFull


class Doubling:
    """Doubles numbers once it may; remembers its batches, and fails with the number 13."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_answer = asyncio.Event()

    async def __call__(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        await self.may_answer.wait()
        if 13 in numbers:
            raise ValueError("unlucky")
        return [2 * number for number in numbers]


def run(
    work: Callable[[BatchQueue[int, int], Doubling], Awaitable[None]],
    max_waiting: int | None = None,
    num_at_once: int = 1,
) -> None:
    async def main() -> None:
        doubling = Doubling()
        await work(BatchQueue(doubling, 3, num_at_once, max_waiting), doubling)

    asyncio.run(main())


async def start(queue: BatchQueue[int, int], *numbers: int) -> list[asyncio.Task]:
    tasks = [asyncio.create_task(queue.ask(number)) for number in numbers]
    await asyncio.sleep(0)
    return tasks


def test_those_who_wait_are_answered_together_and_in_order() -> None:
    async def work(queue: BatchQueue[int, int], doubling: Doubling) -> None:
        tasks = await start(queue, 1, 2, 3, 4, 5)
        assert queue.num_waiting == 4
        doubling.may_answer.set()
        answers = await asyncio.gather(*tasks)
        assert [answer.value for answer in answers] == [2, 4, 6, 8, 10]
        assert doubling.batches == [[1], [2, 3, 4], [5]]
        assert [answer.batch for answer in answers] == [1, 3, 3, 3, 1]
        assert queue.num_waiting == 0

    run(work)


def test_several_batches_are_answered_at_once() -> None:
    async def work(queue: BatchQueue[int, int], doubling: Doubling) -> None:
        tasks = await start(queue, 1, 2, 3)
        await asyncio.sleep(0)
        assert doubling.batches == [[1], [2]]
        doubling.may_answer.set()
        await asyncio.gather(*tasks)

    run(work, num_at_once=2)


@pytest.mark.parametrize("max_waiting", [0, 2])
def test_one_too_many_is_refused_at_once_and_the_others_are_answered(max_waiting: int) -> None:
    async def work(queue: BatchQueue[int, int], doubling: Doubling) -> None:
        numbers = range(max_waiting + 1)
        tasks = await start(queue, *numbers)
        with pytest.raises(QueueFull, match=f"at most {max_waiting} requests"):
            await queue.ask(7)
        doubling.may_answer.set()
        assert [answer.value for answer in await asyncio.gather(*tasks)] == [2 * number for number in numbers]
        assert (await queue.ask(7)).value == 14

    run(work, max_waiting)


def test_one_who_gives_up_is_not_asked_for_and_makes_room() -> None:
    async def work(queue: BatchQueue[int, int], doubling: Doubling) -> None:
        first, second = await start(queue, 1, 2)
        second.cancel()
        await asyncio.sleep(0)
        assert queue.num_waiting == 0
        (third,) = await start(queue, 3)
        doubling.may_answer.set()
        assert [(await task).value for task in (first, third)] == [2, 6]
        assert doubling.batches == [[1], [3]]

    run(work, max_waiting=1)


def test_one_who_gives_up_while_it_is_answered_disturbs_nobody() -> None:
    async def work(queue: BatchQueue[int, int], doubling: Doubling) -> None:
        tasks = await start(queue, 1, 2, 3)
        doubling.may_answer.set()
        await tasks[0]
        doubling.may_answer.clear()
        await asyncio.sleep(0)
        tasks[1].cancel()
        doubling.may_answer.set()
        assert (await tasks[2]).value == 6
        assert doubling.batches == [[1], [2, 3]]

    run(work)


def test_a_fault_reaches_its_batch_alone() -> None:
    async def work(queue: BatchQueue[int, int], doubling: Doubling) -> None:
        doubling.may_answer.set()
        answers = await asyncio.gather(*(queue.ask(n) for n in (1, 13, 3, 4, 5)), return_exceptions=True)
        assert [getattr(answer, "value", type(answer)) for answer in answers] == [2, *[ValueError] * 3, 10]

    run(work)


def test_an_answer_too_few_is_a_fault() -> None:
    async def work(queue: BatchQueue[int, int], doubling: Doubling) -> None:
        async def none(numbers: list[int]) -> list[int]:
            return []

        with pytest.raises(RuntimeError, match="each of 1 requests, found 0"):
            await BatchQueue(none, 3, 1).ask(1)

    run(work)


def test_those_who_ask_almost_together_are_answered_together() -> None:
    async def work(queue: BatchQueue[int, int], doubling: Doubling) -> None:
        doubling.may_answer.set()
        queue.gather(60.0, lambda: 2)
        for _ in range(2):
            first = asyncio.create_task(queue.ask(1))
            await asyncio.sleep(0.01)
            assert (await queue.ask(2)).value == 4
            assert (await first).value == 2
        queue.gather(60.0, lambda: 4)
        await asyncio.gather(*(queue.ask(number) for number in (3, 4, 5)))  # a full batch waits for nobody
        assert doubling.batches == [[1, 2], [1, 2], [3, 4, 5]]

    run(work)


def test_requests_are_spread_while_several_are_free() -> None:
    async def work(queue: BatchQueue[int, int], doubling: Doubling) -> None:
        doubling.may_answer.set()
        queue.gather(60.0, lambda: 3)
        await asyncio.gather(*(queue.ask(number) for number in (1, 2, 3)))
        assert doubling.batches == [[1], [2, 3]]

    run(work, num_at_once=2)


def test_one_who_does_not_come_is_not_waited_for() -> None:
    async def work(queue: BatchQueue[int, int], doubling: Doubling) -> None:
        doubling.may_answer.set()
        queue.gather(0.001, lambda: 2)
        assert (await queue.ask(1)).value == 2
        assert doubling.batches == [[1]]

    run(work)
