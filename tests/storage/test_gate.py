"""The gate of one storage: bounded, fair, and never leaking a place."""

import asyncio

import pytest

from app.errors import ThrottledError
from app.storage.gate import Gate


async def settle() -> None:
    """Let every task that can run, run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_places_are_bounded_and_the_queue_is_first_come_first_served() -> None:
    gate, order = Gate(2, 10), []

    async def visit(number: int) -> None:
        async with gate:
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(visit(number) for number in range(8)))
    assert order == list(range(8))
    assert gate.try_acquire()
    assert gate.try_acquire()
    assert not gate.try_acquire()


async def test_nobody_enters_beyond_the_bound() -> None:
    gate, inside, most = Gate(3, 100), 0, 0

    async def visit() -> None:
        nonlocal inside, most
        async with gate:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(visit() for _ in range(50)))
    assert (most, inside, gate.waiting) == (3, 0, 0)


async def test_a_full_queue_throttles_at_once() -> None:
    gate = Gate(1, 1)
    await gate.acquire()
    waiting = asyncio.create_task(gate.acquire())
    await settle()
    with pytest.raises(ThrottledError) as caught:
        await gate.acquire()
    assert caught.value.retry_after_s >= 1
    gate.release()
    await waiting
    gate.release()
    assert gate.try_acquire()


async def test_a_queue_of_none_throttles_the_second() -> None:
    gate = Gate(1, 0)
    async with gate:
        with pytest.raises(ThrottledError):
            await gate.acquire()
    assert gate.try_acquire()


async def test_a_free_place_overtakes_nobody() -> None:
    gate = Gate(1, 5)
    await gate.acquire()
    waiting = asyncio.create_task(gate.acquire())
    await settle()
    gate.release()  # belongs to the one who waits, although he has not run yet
    assert not gate.try_acquire()
    await waiting


async def test_a_cancelled_waiter_leaves_the_queue() -> None:
    gate = Gate(1, 1)
    await gate.acquire()
    waiting = asyncio.create_task(gate.acquire())
    await settle()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert gate.waiting == 0
    gate.release()
    assert gate.try_acquire()


@pytest.mark.parametrize("release_first", [True, False])
async def test_a_place_given_to_a_cancelled_waiter_is_passed_on(release_first: bool) -> None:
    gate = Gate(1, 5)
    await gate.acquire()
    first, second = asyncio.create_task(gate.acquire()), asyncio.create_task(gate.acquire())
    await settle()
    if release_first:
        gate.release()
        first.cancel()
    else:
        first.cancel()
        gate.release()
    await asyncio.gather(first, return_exceptions=True)
    async with asyncio.timeout(1):
        await second
    gate.release()
    assert gate.try_acquire()


async def test_an_error_inside_frees_the_place() -> None:
    gate = Gate(1, 0)
    with pytest.raises(KeyError):
        async with gate:
            raise KeyError
    assert gate.try_acquire()
