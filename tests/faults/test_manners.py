"""What Framegate does so that a bucket is not hurt, and its own clients know what to do: queue, clock, budget."""

import asyncio
from time import time

import pytest

from app.storage.retries import RetryBudget
from tests.api.conftest import azure_source
from tests.faults.conftest import SMALL, OpenSite, Site, counted, eventually, take
from tests.servers.azurite import AzureServer
from tests.servers.fault_proxy import Faults

CLOCK = 'framegate_upstream_retries_total{reason="clock"}'


def slow_clock() -> float:
    """Our clock, two hours behind."""
    return time() - 7200


async def test_a_full_queue_is_503_with_retry_after_for_the_next_and_for_nobody_else(
    open_site: OpenSite,
) -> None:
    async with open_site(upstream_concurrency=1, upstream_queue=2) as site:
        await site.bucket.put("small.jpg", SMALL)
        begun = site.proxy.answers
        site.proxy.faults = Faults(stall_before_head=True)
        readers = [asyncio.create_task(site.take("small.jpg")) for _ in range(8)]
        await eventually(lambda: sum(reader.done() for reader in readers) == 5)
        refused = [reader.result() for reader in readers if reader.done()]
        assert {(got.status, got.slug) for got in refused} == {(503, "storage-throttled")}
        assert all(1 <= int(got.headers["retry-after"]) <= 120 for got in refused)
        site.proxy.heal()
        served = [got for got in await asyncio.gather(*readers) if got not in refused]
        assert [(got.status, got.body == SMALL) for got in served] == [(200, True)] * 3
        assert site.proxy.answers == begun + 3
        assert not (await site.opened()).busy


async def test_s3_teaches_us_the_time_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = site.service.admin
    monkeypatch.setattr("app.storage.providers.s3_signature.time", slow_clock)
    monkeypatch.setattr("app.storage.clock.time", slow_clock)
    begun, learned = site.proxy.answers, await counted(reader, CLOCK)
    for _ in range(3):
        got = await site.take("small.jpg")
        assert (got.status, got.body == SMALL) == (200, True)
    assert (site.proxy.answers, await counted(reader, CLOCK)) == (begun + 4, learned + 1)
    assert abs((await site.opened()).clock_skew_s - 7200) < 60
    monkeypatch.undo()  # NTP has set it right
    assert (await site.take("small.jpg")).status == 200
    assert abs((await site.opened()).clock_skew_s) < 60


async def test_azure_teaches_us_the_time_once(
    site: Site, azurite: AzureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = site.service.admin
    async with azurite.container() as container:
        await container.put("small.jpg", SMALL)
        storage_id = await site.service.attach({"display_name": "Blobs", "source": azure_source(container)})
        monkeypatch.setattr("app.storage.providers.azure_access.time", slow_clock)
        monkeypatch.setattr("app.storage.clock.time", slow_clock)
        learned = await counted(reader, CLOCK)
        for _ in range(3):
            got = await take(reader, f"/v1/storages/{storage_id}/objects/small.jpg")
            assert (got.status, got.body == SMALL) == (200, True)
        assert await counted(reader, CLOCK) == learned + 1


async def test_a_bucket_that_is_down_is_not_asked_three_times_by_everybody(site: Site) -> None:
    name = 'framegate_upstream_retries_total{reason="no_answer"}'
    before = await counted(site.service.admin, name)
    site.proxy.faults = Faults(cut_before_head=True)
    answers = [await site.take("small.jpg") for _ in range(20)]
    assert {got.slug for got in answers} == {"storage-error"}
    site.proxy.heal()
    made = await counted(site.service.admin, name) - before
    assert RetryBudget.MOST <= made <= RetryBudget.MOST + 20 * RetryBudget.EARNED
