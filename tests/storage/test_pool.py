"""Open buckets are shared, replaced and closed, never under somebody who reads."""

import asyncio
from typing import cast

import pytest

from app.errors import MisconfiguredError
from app.storage.bucket import Bucket
from app.storage.pool import BucketPool


class Fake:
    """A bucket that counts its closings."""

    def __init__(self, name: tuple[int, int]) -> None:
        self.name = name
        self.busy = False
        self.closed = 0

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.closed += 1


class Opener:
    """Opens slowly, keeps what it opened, and can fail."""

    def __init__(self) -> None:
        self.opened: list[Fake] = []
        self.fails = False
        self.may_finish = asyncio.Event()
        self.may_finish.set()

    async def __call__(self, storage_id: int, version: int) -> Bucket:
        await self.may_finish.wait()
        if self.fails:
            raise MisconfiguredError("no")
        self.opened.append(Fake((storage_id, version)))
        return cast("Bucket", self.opened[-1])


async def test_many_askers_at_once_share_one_opening() -> None:
    opener = Opener()
    pool = BucketPool(opener)
    got = await asyncio.gather(*(pool.get(1, 1) for _ in range(50)))
    assert len(opener.opened) == 1
    assert all(bucket is got[0] for bucket in got)
    assert await pool.get(1, 1) is got[0]
    assert await pool.get(2, 1) is not got[0]
    await pool.aclose()
    assert [bucket.closed for bucket in opener.opened] == [1, 1]


async def test_a_cancelled_asker_does_not_disturb_the_others() -> None:
    opener = Opener()
    opener.may_finish.clear()
    pool = BucketPool(opener)
    first, second = (asyncio.ensure_future(pool.get(1, 1)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    opener.may_finish.set()
    assert await second is cast("Bucket", opener.opened[0])
    with pytest.raises(asyncio.CancelledError):
        await first
    await pool.aclose()


async def test_a_failure_reaches_every_asker_and_is_not_remembered() -> None:
    opener = Opener()
    opener.fails = True
    pool = BucketPool(opener)
    results = await asyncio.gather(*(pool.get(1, 1) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [MisconfiguredError] * 3
    assert len(pool) == 0
    opener.fails = False
    assert await pool.get(1, 1)
    await pool.aclose()


async def test_an_idle_bucket_is_closed_but_never_a_busy_one() -> None:
    opener = Opener()
    pool = BucketPool(opener, idle_s=0.02)
    await pool.get(1, 1)
    await pool.get(2, 1)
    opener.opened[1].busy = True
    await asyncio.sleep(0.08)
    assert [bucket.closed for bucket in opener.opened] == [1, 0]
    opener.opened[1].busy = False
    await asyncio.sleep(0.05)
    assert [bucket.closed for bucket in opener.opened] == [1, 1]
    assert len(pool) == 0
    await pool.get(1, 1)
    assert len(opener.opened) == 3
    await pool.aclose()


async def test_a_bucket_in_use_stays_open() -> None:
    opener = Opener()
    pool = BucketPool(opener, idle_s=0.05)
    for _ in range(10):
        await pool.get(1, 1)
        await asyncio.sleep(0.02)
    assert [bucket.closed for bucket in opener.opened] == [0]
    await pool.aclose()


async def test_a_newer_version_closes_the_older_one_when_its_readers_are_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.storage.pool.LINGER_S", 0.02)
    opener = Opener()
    pool = BucketPool(opener, idle_s=60)
    await pool.get(1, 1)
    opener.opened[0].busy = True
    await pool.get(1, 2)
    await asyncio.sleep(0.06)
    assert [bucket.closed for bucket in opener.opened] == [0, 0]
    opener.opened[0].busy = False
    await asyncio.sleep(0.06)
    assert [bucket.closed for bucket in opener.opened] == [1, 0]
    pool.retire(1)
    await asyncio.sleep(0.06)
    assert [bucket.closed for bucket in opener.opened] == [1, 1]
    await pool.aclose()


async def test_closing_the_pool_stops_openings_and_may_be_done_twice() -> None:
    opener = Opener()
    pool = BucketPool(opener)
    await pool.get(1, 1)
    opener.may_finish.clear()
    waiting = asyncio.ensure_future(pool.get(1, 2))
    await asyncio.sleep(0)
    await pool.aclose()
    await pool.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert [bucket.closed for bucket in opener.opened] == [1]
