"""The gate of one storage: bounded, fair, and never leaking a place."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ShareUsedUpError, ThrottledError
from app.storage.gate import Gate, Tally
from tests.apart import run_apart


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


ANNA, BERT, CARL = 1, 2, 3


async def queued(gate: Gate, caller: int, count: int) -> "list[asyncio.Task[None]]":
    """Let a caller wait `count` times."""
    tasks = [asyncio.create_task(gate.acquire(caller)) for _ in range(count)]
    await settle()
    return tasks


async def end(*tasks: "asyncio.Task[None]") -> None:
    """Send away who still waits."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_one_caller_never_holds_every_place() -> None:
    gate = Gate(8, 100)
    anna = await queued(gate, ANNA, 10)
    assert sum(task.done() for task in anna) == 6
    assert gate.try_acquire(BERT)
    assert gate.try_acquire(BERT)
    assert not gate.try_acquire(CARL)
    await end(*anna)


async def test_callers_take_turns_however_many_wait() -> None:
    gate, order = Gate(1, 100), []

    async def visit(caller: int) -> None:
        await gate.acquire(caller)
        order.append(caller)
        gate.release(caller)

    await gate.acquire()
    waiting = [asyncio.create_task(visit(caller)) for caller in [ANNA] * 4 + [BERT] * 2 + [CARL]]
    await settle()
    gate.release()
    await asyncio.gather(*waiting)
    assert order == [ANNA, BERT, CARL, ANNA, BERT, ANNA, ANNA]


async def test_a_caller_with_his_share_is_passed_over_until_he_gives_a_place_back() -> None:
    gate = Gate(4, 100)
    for _ in range(3):
        await gate.acquire(ANNA)
    await gate.acquire(BERT)
    anna, carl = await queued(gate, ANNA, 1), await queued(gate, CARL, 1)
    gate.release(BERT)
    await settle()
    assert (anna[0].done(), carl[0].done()) == (False, True)
    gate.release(ANNA)
    await settle()
    assert anna[0].done()


async def test_a_lone_caller_may_fill_the_queue_and_is_throttled_then() -> None:
    gate = Gate(1, 3)
    await gate.acquire(ANNA)
    waiting = await queued(gate, ANNA, 3)
    with pytest.raises(ThrottledError):
        await gate.acquire(ANNA)
    await end(*waiting)


async def test_who_comes_to_a_queue_full_of_anothers_requests_gets_a_place_in_it() -> None:
    tally = Tally(100)
    gate = Gate(1, 4, tally)
    await gate.acquire(ANNA)
    anna, bert = await queued(gate, ANNA, 4), await queued(gate, BERT, 1)
    refused = [task for task in anna if task.done()]
    assert refused == anna[-1:]
    assert isinstance(refused[0].exception(), ShareUsedUpError)
    assert (gate.waiting, tally[ANNA], tally[BERT]) == (4, 4, 1)
    with pytest.raises(ShareUsedUpError):
        await gate.acquire(ANNA)
    gate.release(ANNA)
    await settle()
    gate.release(ANNA)
    await settle()
    assert bert[0].done()
    await end(*anna, *bert)


async def test_the_house_has_no_share_and_is_never_sent_away() -> None:
    gate = Gate(2, 2, Tally(1))
    await gate.acquire()
    await gate.acquire()
    house = await queued(gate, 0, 2)
    with pytest.raises(ThrottledError):
        await gate.acquire(ANNA)
    assert not any(task.done() for task in house)
    await end(*house)


async def test_a_caller_has_one_share_of_all_storages_together() -> None:
    tally = Tally(3)
    gates = [Gate(4, 4, tally) for _ in range(4)]
    for gate in gates[:3]:
        await gate.acquire(ANNA)
    with pytest.raises(ShareUsedUpError):
        await gates[3].acquire(ANNA)
    await gates[3].acquire(BERT)
    gates[0].release(ANNA)
    await gates[3].acquire(ANNA)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["come", "go", "leave"])), max_size=80))
def test_whatever_callers_do_no_place_is_lost(steps: list[tuple[int, str]]) -> None:
    async def run() -> None:
        tally = Tally(20)
        gate = Gate(3, 5, tally)
        tasks: list[tuple[int, asyncio.Task[None]]] = []
        for caller, deed in steps:
            mine = [pair for pair in tasks if pair[0] == caller]
            if deed == "come":
                tasks.append((caller, asyncio.create_task(gate.acquire(caller))))
            elif deed == "leave" and mine and not mine[-1][1].done():
                mine[-1][1].cancel()
            elif deed == "go":
                inside = [pair for pair in mine if pair[1].done() and not failed(pair[1])]
                if inside:
                    tasks.remove(inside[0])
                    gate.release(caller)
            if caller % 2:
                await asyncio.sleep(0)
        await settle()
        for caller, task in tasks:
            if not task.done():
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if not failed(task):
                gate.release(caller)
        assert gate.waiting == 0
        assert [tally[caller] for caller in range(4)] == [0, 0, 0, 0]
        assert [gate.try_acquire() for _ in range(4)] == [True, True, True, False]

    run_apart(run())


def failed(task: "asyncio.Task[None]") -> bool:
    """Whether a visitor got no place."""
    return task.cancelled() or task.exception() is not None
