"""Rendering processes that hang or die, and a service that is stopped or killed while it has some."""

import asyncio
import os
import signal

import pytest
from PIL import Image

from app.services import renditions
from tests.api.conftest import s3_body
from tests.faults.conftest import LONG_BYTES, OpenSite, Serve, eventually
from tests.faults.process import Serving
from tests.images.pictures import corners, decoded, encoded
from tests.images.processes import lives, rendering_processes
from tests.servers.fault_proxy import Faults
from tests.servers.s3 import S3Bucket

PICTURE = encoded(corners(800, 600))


async def rendering(process: Serving, bucket: S3Bucket) -> tuple[str, int]:
    """Have a picture made smaller; gives its path, and the process that made it."""
    await bucket.put("tom.jpg", PICTURE)
    attached = await process.admin.post("/v1/storages", json=s3_body(bucket))
    path = f"/v1/storages/{attached.json()['id']}/objects/tom.jpg"
    answer = await process.admin.get(f"{path}?width=80")
    assert decoded(answer.content).size == (80, 60)
    [renderer] = rendering_processes(process.process.pid)
    return path, renderer


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_killed_service_leaves_no_rendering_process(
    serve: Serve, s3_bucket: S3Bucket, stopped: bool
) -> None:
    async with serve() as process:
        _, renderer = await rendering(process, s3_bucket)
        if stopped:
            os.kill(renderer, signal.SIGSTOP)
        process.kill()
        await eventually(lambda: not lives(renderer))


async def test_a_service_that_stops_leaves_none_and_does_not_complain(
    serve: Serve, s3_bucket: S3Bucket
) -> None:
    async with serve(grace_s=1, rendition_workers=1) as process:
        path, renderer = await rendering(process, s3_bucket)
        opened = [os.readlink(f"/proc/{renderer}/fd/{number}") for number in (0, 1, 2, 3)]
        assert len(os.listdir(f"/proc/{renderer}/fd")) == len(opened)
        os.kill(renderer, signal.SIGSTOP)
        asked = [asyncio.create_task(process.admin.get(f"{path}?width={width}")) for width in range(1, 9)]
        await asyncio.sleep(0.5)
        process.terminate()
        assert await process.exit_code() == 0
        await asyncio.wait(asked)
        for task in asked:
            task.exception()
        assert not lives(renderer)
        [complaint] = process.events("error")
        assert complaint["event"].startswith("Cancel 8 running task(s), timeout graceful shutdown exceeded")
        assert "Traceback" not in process.log()
        assert "Traceback" not in process.log()


async def test_who_asked_for_a_picture_whose_process_died_gets_it_from_another(
    serve: Serve, s3_bucket: S3Bucket
) -> None:
    async with serve(rendition_workers=1) as process:
        path, renderer = await rendering(process, s3_bucket)
        os.kill(renderer, signal.SIGSTOP)
        asked = asyncio.create_task(process.admin.get(f"{path}?width=40"))
        await asyncio.sleep(0.3)
        os.kill(renderer, signal.SIGKILL)
        assert decoded((await asked).content).size == (40, 30)
        [killed] = process.events("warning")
        assert (killed["event"], killed["storage_id"]) == (
            "rendition_process_killed",
            int(path.split("/")[3]),
        )
        assert "tom.jpg" not in str(killed)
        metrics = (await process.admin.get("/metrics")).text
        assert 'framegate_renditions_total{outcome="killed"} 1.0' in metrics
        assert 'framegate_renditions_total{outcome="made"} 2.0' in metrics
        assert "framegate_rendition_seconds_count 2.0" in metrics
        assert process.events("error") == []


async def test_ctrl_c_reaches_the_service_alone(serve: Serve, s3_bucket: S3Bucket) -> None:
    async with serve() as process:
        _, renderer = await rendering(process, s3_bucket)
        assert os.getpgid(renderer) != os.getpgid(process.process.pid)


async def test_a_bucket_that_drips_does_not_keep_a_turn_for_ever(
    open_site: OpenSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renditions, "SOURCE_LIMIT_S", 1.0)
    async with open_site(rendition_workers=1, rendition_queue=0) as site:
        await site.bucket.put("long.jpg", encoded(Image.effect_noise((1200, 1200), 100)))
        site.proxy.faults = Faults(bytes_per_s=100_000)
        # As many as one user has turns.
        dripping = [asyncio.create_task(site.take(f"long.jpg?width={width}")) for width in (1, 2, 3)]
        await asyncio.wait(dripping)
        assert {(task.result().status, task.result().slug) for task in dripping} == {(504, "storage-timeout")}
        site.proxy.heal()
        assert (await site.take("long.jpg?width=5")).status == 200
        await eventually(lambda: site.proxy.connections_open <= 2)


async def test_a_bucket_that_breaks_off_says_so_and_the_next_try_succeeds(open_site: OpenSite) -> None:
    long = encoded(Image.effect_noise((1200, 1200), 100))
    async with open_site() as site:
        for key, body in (("short.jpg", PICTURE), ("long.jpg", long)):
            await site.bucket.put(key, body)
            # Behind every byte that a resume could go on from.
            site.proxy.faults = Faults(cut_after=0)
            torn = await site.take(f"{key}?width=80")
            assert (torn.status, torn.slug) == (502, "storage-error")
            site.proxy.heal()
            assert (await site.take(f"{key}?width=80")).status == 200
    assert len(long) > LONG_BYTES > len(PICTURE)
