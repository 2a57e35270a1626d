"""The memory of all uploads: bounded, shared between users, first come, first served."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from app.errors import ThrottledError
from app.services.room import Room

ANN, BEN, CLEO = 1, 2, 3


class Holders:
    """Tasks that hold a part of a room until they are let go."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.inside: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, user_id: int, size_bytes: int) -> None:
        self._tasks[name] = asyncio.create_task(self._hold(name, user_id, size_bytes))
        await settle()

    async def go(self, name: str) -> None:
        self._tasks.pop(name).cancel()
        await settle()

    async def _hold(self, name: str, user_id: int, size_bytes: int) -> None:
        async with self.room.reserve(user_id, size_bytes):
            self.inside.append(name)
            try:
                await asyncio.Event().wait()
            finally:
                self.inside.remove(name)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_no_more_is_held_than_there_is_and_the_first_comes_first() -> None:
    holders = Holders(Room(100, shares=2, wait_s=None, most_waiters=10))
    await holders.come("a", ANN, 50)
    await holders.come("b", BEN, 40)
    await holders.come("c", CLEO, 20)
    await holders.come("d", CLEO, 5)
    assert holders.inside == ["a", "b"]  # d would fit, and does not overtake c
    await holders.go("b")
    assert holders.inside == ["a", "c", "d"]


async def test_one_user_has_half_and_holds_up_nobody_when_he_waits() -> None:
    holders = Holders(Room(100, shares=2, wait_s=None, most_waiters=10))
    await holders.come("a", ANN, 40)
    await holders.come("b", ANN, 40)
    await holders.come("c", BEN, 50)
    assert holders.inside == ["a", "c"]
    await holders.go("a")
    assert holders.inside == ["c", "b"]


async def test_who_goes_while_he_waits_makes_way() -> None:
    holders = Holders(Room(100, shares=2, wait_s=None, most_waiters=10))
    await holders.come("a", ANN, 50)
    await holders.come("b", BEN, 30)
    await holders.come("c", CLEO, 50)
    await holders.come("d", BEN, 20)
    assert holders.inside == ["a", "b"]
    await holders.go("c")
    assert holders.inside == ["a", "b", "d"]


async def test_more_than_half_is_cut_to_half_and_zero_is_no_guest() -> None:
    async with AsyncExitStack() as stack:
        room = Room(100, shares=2, wait_s=None, most_waiters=1)
        await stack.enter_async_context(room.reserve(ANN, 10**12))
        await stack.enter_async_context(room.reserve(BEN, 10**12))
        await stack.enter_async_context(room.reserve(CLEO, 0))


async def test_a_user_has_a_bounded_queue_of_his_own() -> None:
    holders = Holders(Room(100, shares=2, wait_s=None, most_waiters=2))
    for name in ("a", "b", "c"):
        await holders.come(name, ANN, 50)
    with pytest.raises(ThrottledError):
        async with holders.room.reserve(ANN, 1):
            pass
    await holders.come("d", BEN, 50)
    assert holders.inside == ["a", "d"]


async def test_one_who_is_let_in_and_cancelled_at_once_gives_it_back() -> None:
    room = Room(100, shares=2, wait_s=None, most_waiters=10)
    first = room.reserve(ANN, 50)
    await first.__aenter__()
    waiting = asyncio.create_task(room.reserve(ANN, 50).__aenter__())
    await settle()
    await first.__aexit__(None, None, None)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(5), room.reserve(ANN, 50):
        pass
