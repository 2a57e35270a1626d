"""Rendering processes: started when needed, confined, killed when they hang, replaced when they die."""

import asyncio
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog
from PIL import Image

from app.errors import NotAPictureError, PictureTooLargeError, RenditionsBusyError
from app.images.pool import TURNS_PER_PROCESS, RenderPool
from app.images.process import RenderProcess
from app.images.rendition import Rendition
from tests.images.pictures import corners, decoded, encoded
from tests.images.processes import lives

PICTURE = encoded(corners())
SMALL = Rendition(40, 40)
LONG = encoded(Image.effect_noise((1200, 1200), 100), "BMP")
"""More than a pipe holds."""


class Pools:
    """Makes pools, remembers what they counted, and closes them."""

    def __init__(self) -> None:
        self.counts: list[str] = []
        self._open: list[RenderPool] = []

    def __call__(self, processes: int = 1, queue: int = 100, **more: Any) -> RenderPool:
        pool = RenderPool(processes, queue, lambda outcome, _: self.counts.append(outcome), **more)
        self._open.append(pool)
        return pool

    async def aclose(self) -> None:
        for pool in self._open:
            await pool.aclose()


@pytest_asyncio.fixture
async def pools() -> AsyncIterator[Pools]:
    """Makes pools that are closed after the test."""
    made = Pools()
    yield made
    await made.aclose()


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds; the time is only there to end a test that would hang."""
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)


async def test_no_process_runs_before_the_first_picture_and_one_serves_many(pools: Pools) -> None:
    pool = pools(processes=2)
    assert pool.pids == []
    for _ in range(3):
        assert decoded(await pool.render(PICTURE, SMALL, 1)).size == (40, 30)
    assert len(pool.pids) == 1
    assert pools.counts == ["made"] * 3


async def test_there_are_never_more_processes_than_allowed(pools: Pools) -> None:
    pool = pools(processes=2)
    await asyncio.gather(*(pool.render(PICTURE, SMALL, 1) for _ in range(12)))
    assert len(pool.pids) == 2


async def test_a_refusal_leaves_its_process_alive(pools: Pools) -> None:
    pool = pools()
    with pytest.raises(NotAPictureError, match="no picture of a kind"):
        await pool.render(b"text", SMALL, 1)
    pids = pool.pids
    wide = encoded(Image.new("L", (16_384, 2)), "PNG")
    with pytest.raises(PictureTooLargeError, match="16383"):
        await pool.render(wide, Rendition(None, None, "webp"), 1)
    with pytest.raises(NotAPictureError):
        await pool.render(b"", SMALL, 1)
    assert await pool.render(LONG, SMALL, 1)
    assert pool.pids == pids
    assert pools.counts == ["refused"] * 3 + ["made"]


async def test_a_process_knows_no_secret_and_holds_no_socket(
    pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAMEGATE_SECRET_KEYS", "k1:secret")
    inherited = os.dup(2)
    os.set_inheritable(inherited, True)
    pool = pools()
    await pool.render(PICTURE, SMALL, 1)
    of_process = Path(f"/proc/{pool.pids[0]}")
    environment = (of_process / "environ").read_bytes().split(b"\0")
    assert {entry.partition(b"=")[0] for entry in environment} <= {b"", b"PYTHONPATH", b"LD_LIBRARY_PATH"}
    opened = [os.readlink(entry) for entry in (of_process / "fd").iterdir()]
    os.close(inherited)
    assert {target.partition(":")[0] for target in opened} <= {"pipe", "/dev/null", "socket"}
    # uvloop speaks to its children by pairs of sockets; a listening or connected one would be one more.
    assert len(opened) == 4
    limits = (of_process / "limits").read_text()
    assert f"Max address space         {1536 * 1024 * 1024}" in limits
    assert os.getsid(pool.pids[0]) != os.getsid(0)


async def test_a_picture_that_wants_too_much_memory_is_refused(pools: Pools) -> None:
    pool = pools()
    vast = encoded(Image.new("RGB", (10_000, 10_000)), "PNG")
    assert await pool.render(vast, SMALL, 1)
    pids = pool.pids
    resource.prlimit(pids[0], resource.RLIMIT_AS, (200 * 1024 * 1024,) * 2)
    with pytest.raises(PictureTooLargeError, match="more memory"):
        await pool.render(vast, SMALL, 1)
    assert await pool.render(PICTURE, SMALL, 1)
    assert pool.pids == pids


async def test_a_process_that_hangs_is_killed_and_replaced(pools: Pools) -> None:
    pool = pools(time_limit_s=0.5)
    await pool.render(PICTURE, SMALL, 1)
    hung = pool.pids[0]
    os.kill(hung, signal.SIGSTOP)
    with structlog.testing.capture_logs() as lines, pytest.raises(PictureTooLargeError, match="takes longer"):
        await pool.render(LONG, SMALL, 7)
    assert not lives(hung)
    assert lines == [
        {
            "event": "rendition_process_killed",
            "storage_id": 7,
            "why": "it took too long",
            "log_level": "warning",
        }
    ]
    assert await pool.render(PICTURE, SMALL, 1)
    assert pools.counts == ["made", "killed", "refused", "made"]


async def test_a_picture_whose_process_is_killed_is_rendered_by_another(pools: Pools) -> None:
    pool = pools()
    await pool.render(PICTURE, SMALL, 1)
    victim = pool.pids[0]
    os.kill(victim, signal.SIGSTOP)
    rendering = asyncio.create_task(pool.render(LONG, SMALL, 1))
    await asyncio.sleep(0.05)
    os.kill(victim, signal.SIGKILL)
    assert decoded(await rendering).size == (40, 40)
    assert victim not in pool.pids
    assert pools.counts == ["made", "killed", "made"]


async def test_a_process_that_died_between_two_pictures_is_replaced(pools: Pools) -> None:
    pool = pools()
    await pool.render(PICTURE, SMALL, 1)
    victim = pool.pids[0]
    os.kill(victim, signal.SIGKILL)
    await eventually(lambda: not lives(victim))
    assert await pool.render(PICTURE, SMALL, 1)


async def test_a_picture_that_takes_two_processes_along_is_refused(
    pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = RenderProcess.start

    async def start_dying() -> RenderProcess:
        process = await start()
        os.kill(process.pid, signal.SIGKILL)
        return process

    monkeypatch.setattr(RenderProcess, "start", start_dying)
    pool = pools()
    with pytest.raises(NotAPictureError, match="Two processes"):
        await pool.render(PICTURE, SMALL, 1)
    assert pools.counts == ["killed", "killed", "refused"]
    assert pool.pids == []


async def test_a_reader_that_leaves_takes_its_process_along_and_no_other(pools: Pools) -> None:
    pool = pools()
    await pool.render(PICTURE, SMALL, 1)
    left = pool.pids[0]
    os.kill(left, signal.SIGSTOP)
    rendering = asyncio.create_task(pool.render(PICTURE, SMALL, 1))
    await asyncio.sleep(0.05)
    rendering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await rendering
    assert not lives(left)
    assert await pool.render(PICTURE, SMALL, 1)


async def test_who_comes_to_a_full_queue_is_turned_away_and_a_turn_that_ends_lets_the_next_in(
    pools: Pools,
) -> None:
    pool = pools(queue=2)
    leave = asyncio.Event()

    async def take() -> None:
        async with pool.turn():
            await leave.wait()

    takers = [asyncio.create_task(take()) for _ in range(TURNS_PER_PROCESS + 2)]
    await asyncio.sleep(0)
    with pytest.raises(RenditionsBusyError) as caught:
        await take()
    assert caught.value.retry_after_s > 0
    takers[-1].cancel()
    await asyncio.wait({takers[-1]})
    takers[-1] = asyncio.create_task(take())
    await asyncio.sleep(0)
    with pytest.raises(RenditionsBusyError):
        await take()
    leave.set()
    await asyncio.gather(*takers)
    await take()
    assert pools.counts == ["busy", "busy"]


async def test_closing_ends_every_process_and_turns_everybody_away(pools: Pools) -> None:
    pool = pools(processes=2)
    await asyncio.gather(*(pool.render(PICTURE, SMALL, 1) for _ in range(4)))
    pids = pool.pids
    os.kill(pids[0], signal.SIGSTOP)
    rendering = [asyncio.create_task(pool.render(LONG, SMALL, 1)) for _ in range(4)]
    await asyncio.sleep(0.05)
    with structlog.testing.capture_logs() as lines:
        await pool.aclose()
        await pool.aclose()
        results = await asyncio.gather(*rendering, return_exceptions=True)
    assert all(isinstance(result, bytes | RenditionsBusyError) for result in results), results
    assert not any(lives(pid) for pid in pids)
    assert pool.pids == []
    assert lines == []
    with pytest.raises(RenditionsBusyError):
        async with pool.turn():
            pass
    with pytest.raises(RenditionsBusyError):
        await pool.render(PICTURE, SMALL, 1)


async def test_a_process_ends_when_the_one_that_wanted_it_is_gone() -> None:
    process = await RenderProcess.start()
    process._requests.close()
    assert await asyncio.wait_for(process._process.wait(), 30) == 0
