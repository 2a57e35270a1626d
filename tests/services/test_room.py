"""Room that is set aside: bounded, shared out, and given to those who wait in their order."""

import asyncio

import pytest

from app.errors import ThrottledError
from app.services.room import MOST_WAITERS, Room

ANN, BOB, EVE, DAN, KIM = 1, 2, 3, 4, 5


async def settled() -> None:
    """Let every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


def waiting(room: Room, user_id: int, size_bytes: int) -> "asyncio.Task[None]":
    return asyncio.create_task(room.wait(user_id, size_bytes))


async def test_what_can_wait_takes_half_of_a_share_at_most() -> None:
    room = Room(80)
    assert room.share_bytes == 20
    assert room.take(ANN, 10)
    assert not room.take(ANN, 1)
    assert room.take(ANN, 10, urgent=True)
    assert not room.take(ANN, 1, urgent=True)
    room.give(ANN, 10)
    assert room.take(BOB, 10)
    room.give(ANN, 4)
    assert room.take(ANN, 4)
    assert room.held_bytes == 20


async def test_what_is_needed_takes_a_whole_share() -> None:
    room = Room(80)
    await room.wait(ANN, 20)
    more = waiting(room, ANN, 1)
    await settled()
    assert not more.done()
    room.give(ANN, 20)
    await more
    assert room.held_bytes == 1


async def test_one_whose_share_is_used_up_holds_up_nobody_else() -> None:
    room = Room(80)
    await room.wait(ANN, 20)
    ann = waiting(room, ANN, 10)
    await settled()
    await room.wait(BOB, 20)
    assert not ann.done()
    room.give(ANN, 20)
    await ann


async def test_the_process_has_a_bound_and_who_came_first_goes_first() -> None:
    room = Room(80)
    for user in (ANN, BOB, EVE, DAN):
        await room.wait(user, 20)
    first = waiting(room, KIM, 15)
    await settled()
    second = waiting(room, KIM, 1)
    room.give(ANN, 5)
    await settled()
    assert not first.done()
    assert not second.done(), "a smaller wish may not overtake"
    assert not room.take(6, 1), "nor what can wait"
    room.give(BOB, 10)
    await first
    assert not second.done()
    room.give(BOB, 1)
    await second
    assert room.held_bytes == 80


async def test_waiting_ends_and_leaves_nothing() -> None:
    room = Room(80, wait_s=0.01)
    await room.wait(ANN, 20)
    with pytest.raises(ThrottledError) as caught:
        await room.wait(ANN, 1)
    assert caught.value.retry_after_s > 0
    room.give(ANN, 20)
    assert room.held_bytes == 0
    await room.wait(ANN, 20)


@pytest.mark.parametrize("served", [False, True], ids=["before its turn", "in its turn"])
async def test_one_who_goes_away_holds_nothing(served: bool) -> None:
    room = Room(80)
    await room.wait(ANN, 20)
    gone, next_one = waiting(room, ANN, 20), waiting(room, ANN, 20)
    await settled()
    if served:
        room.give(ANN, 20)
    gone.cancel()
    if not served:
        room.give(ANN, 20)
    await next_one
    assert room.held_bytes == 20
    assert gone.cancelled()


async def test_few_may_wait() -> None:
    room = Room(80)
    await room.wait(ANN, 20)
    tasks = [waiting(room, ANN, 20) for _ in range(MOST_WAITERS)]
    await settled()
    with pytest.raises(ThrottledError):
        await room.wait(ANN, 20)
    await room.wait(BOB, 20)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    room.give(ANN, 20)
    assert room.held_bytes == 20
