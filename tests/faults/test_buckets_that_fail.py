"""The list of faults, each between Framegate and a real S3 server: `README.md` maps it to these tests.

A fault that passes is not seen by the client, one that stays is an honest problem or a broken connection, and
the bytes are never wrong. Each test ends with the next requests succeeding and nothing left behind.
"""

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from app.storage import retries
from app.storage.resuming import ResumingStream
from app.storage.transport import BodyStream
from app.storage.transport.connection import Connection
from tests.faults.conftest import (
    LONG,
    LONG_BYTES,
    ONE_READER,
    SMALL,
    SMALL_BYTES,
    OpenSite,
    Site,
    assert_broken,
    assert_well,
    behind,
    counted,
    eventually,
    pattern,
)
from tests.faults.fake_bucket import refusal
from tests.servers.fault_proxy import Faults

HUGE = pattern(16_000_000, 2)
CUTS = [("small.jpg", cut) for cut in (0, 1, SMALL_BYTES // 2, SMALL_BYTES - 1)]
CUTS += [("long.jpg", cut) for cut in (0, 1, LONG_BYTES // 2, LONG_BYTES - 1)]
OBJECTS = {"small.jpg": SMALL, "long.jpg": LONG}


@pytest_asyncio.fixture(scope="module")
async def patient(open_site: OpenSite) -> AsyncIterator[Site]:
    """A site that waits as long as it does by default."""
    async with open_site() as one:
        yield one


async def assert_whole(site: Site, *keys: str) -> None:
    """Objects come whole, as if nothing was."""
    for key in keys or OBJECTS:
        got = await site.take(key)
        assert (got.status, got.slug, got.whole, got.body == OBJECTS[key]) == (200, "", True, True), key


# --- reset after 0, 1, half, all but one bytes; FIN early -------------------------------------------


@pytest.mark.parametrize("how", ["rst", "fin"])
async def test_a_reset_or_fin_after_0_1_half_or_all_but_one_bytes_is_not_seen(site: Site, how: Any) -> None:
    for key, cut in CUTS:
        site.proxy.faults = Faults(cut_after=cut, cut_with=how, answers=1)
        await assert_whole(site, key)
        assert site.proxy.faults.answers == 0, (key, cut)
    await assert_well(site)


@pytest.mark.parametrize("how", ["rst", "fin"])
async def test_a_reset_or_fin_each_time_is_a_problem_or_a_broken_connection(site: Site, how: Any) -> None:
    """Small objects are a problem before the first byte; of long ones the first bytes are out already."""
    for key, cut in CUTS:
        site.proxy.faults = Faults(cut_after=cut, cut_with=how)
        await site.forgive()
        got, whole = await site.take(key), OBJECTS[key]
        if got.slug:
            assert (got.status, got.slug, got.whole) == (502, "storage-error", True), (key, cut)
            assert key == "small.jpg" or how == "rst", cut
        elif cut < LONG_BYTES // 2:
            assert key == "long.jpg", cut
            assert_broken(got, whole)
        else:  # so many bytes each time are the whole after a few times
            assert (got.status, whole.startswith(got.body), got.whole) == (200, True, got.body == whole)
    await assert_well(site)


@pytest.mark.parametrize("how", ["rst", "fin"])
async def test_a_connection_that_ends_without_an_answer_is_tried_again(site: Site, how: Any) -> None:
    await assert_well(site)  # so that there are kept connections, which are tried first
    site.proxy.faults = Faults(cut_before_head=True, cut_with=how, answers=2)
    await assert_whole(site, "small.jpg")
    site.proxy.faults = Faults(cut_before_head=True, cut_with=how)
    for key in OBJECTS:
        got = await site.take(key)
        assert (got.status, got.slug) == (502, "storage-error")
    await assert_well(site)


async def test_a_part_that_breaks_off_goes_on_or_is_no_part(site: Site) -> None:
    asked = {"Range": "bytes=100000-699999"}
    site.proxy.faults = Faults(cut_after=400_000, cut_with="fin", answers=1)
    got = await site.take("long.jpg", **asked)
    assert (got.status, got.whole, got.body == LONG[100_000:700_000]) == (206, True, True)
    assert got.headers["content-range"] == f"bytes 100000-699999/{LONG_BYTES}"
    site.proxy.faults = Faults(cut_after=10_000, cut_with="fin")
    got = await site.take("long.jpg", **asked)
    assert (got.status, got.whole, got.headers["content-length"]) == (206, False, "600000")
    assert LONG[100_000:].startswith(got.body)
    await assert_well(site)


# --- stall before and after headers ------------------------------------------------------------------


async def test_a_stall_before_the_headers_is_504_and_not_tried_again(site: Site) -> None:
    begun = site.proxy.answers
    site.proxy.faults = Faults(stall_before_head=True)
    for got in await asyncio.gather(site.take("small.jpg"), site.take("long.jpg")):
        assert (got.status, got.slug) == (504, "storage-timeout")
    assert site.proxy.answers == begun + 2
    await assert_well(site)


async def test_a_stall_in_a_short_body_each_time_is_504(site: Site) -> None:
    site.proxy.faults = Faults(stall_after=1000)
    got = await site.take("small.jpg")
    assert (got.status, got.slug) == (504, "storage-timeout")
    await assert_well(site)


@pytest.mark.parametrize("after", [0, LONG_BYTES - 1])
async def test_a_stall_after_the_headers_is_gone_on_from(site: Site, after: int) -> None:
    site.proxy.faults = Faults(stall_after=after, answers=1)
    await assert_whole(site, "long.jpg")
    await assert_well(site)


async def test_a_stall_after_the_headers_each_time_breaks_a_long_answer(site: Site) -> None:
    site.proxy.faults = Faults(stall_after=0)
    assert_broken(await site.take("long.jpg"), LONG)
    await assert_well(site)


# --- 500, 503 SlowDown, 429 ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("500 Internal Server Error", "InternalError", (502, "storage-error")),
        ("503 Slow Down", "SlowDown", (503, "storage-throttled")),
        ("429 Too Many Requests", "TooManyRequests", (503, "storage-throttled")),
    ],
)
async def test_a_500_503_or_429_is_not_seen_if_it_passes_and_told_if_it_stays(
    site: Site, status: str, code: str, expected: tuple[int, str]
) -> None:
    said = refusal(status, code, Connection="close")
    site.proxy.faults = Faults(instead=said, answers=2)
    await assert_whole(site, "long.jpg")
    begun = site.proxy.answers
    site.proxy.faults = Faults(instead=said)
    got = await site.take("long.jpg")
    assert ((got.status, got.slug), site.proxy.answers - begun) == (expected, 3)
    assert ("retry-after" in got.headers) == (got.status == 503)
    await assert_well(site)


# --- wrong Content-Length -----------------------------------------------------------------------------


async def test_a_content_length_that_is_too_long_never_ends_cleanly(site: Site) -> None:
    site.proxy.faults = Faults(length_off_by=10, cut_after=SMALL_BYTES, cut_with="fin")
    got = await site.take("small.jpg")
    assert (got.status, got.slug) == (502, "storage-error")
    site.proxy.faults = Faults(length_off_by=10, cut_after=LONG_BYTES, cut_with="fin", answers=1)
    got = await site.take("long.jpg")
    assert (got.status, got.whole, got.headers["content-length"]) == (200, False, str(LONG_BYTES + 10))
    assert LONG.startswith(got.body)
    await assert_well(site)


async def test_a_content_length_that_is_too_short_gives_so_much_and_no_answer_to_the_next(site: Site) -> None:
    for key, whole in OBJECTS.items():
        site.proxy.faults = Faults(length_off_by=-10, answers=1)
        got = await site.take(key)
        assert (got.status, got.whole, got.body == whole[:-10]) == (200, True, True)
        await assert_whole(site, key)
    await assert_well(site)


# --- object replaced ----------------------------------------------------------------------------------


async def test_an_object_replaced_between_two_ranges_is_told_by_if_range_and_412(patient: Site) -> None:
    site, new = patient, pattern(LONG_BYTES // 2, 4)
    await site.bucket.put("long.jpg", LONG)
    first = await site.take("long.jpg", Range="bytes=0-99")
    etag = first.headers["etag"]
    await site.bucket.put("long.jpg", new)
    held = await site.take("long.jpg", Range="bytes=100-199", **{"If-Match": etag})
    assert (held.status, held.slug) == (412, "precondition-failed")
    asked = await site.take("long.jpg", Range="bytes=100-199", **{"If-Range": etag})
    assert (asked.status, asked.body == new) == (200, True)
    bare = await site.take("long.jpg", Range="bytes=100-199")
    assert (bare.status, bare.body == new[100:200], bare.headers["etag"] != etag) == (206, True, True)
    past = await site.take("long.jpg", Range=f"bytes={LONG_BYTES - 100}-")
    assert (past.status, past.headers["content-range"]) == (416, f"bytes */{len(new)}")
    await site.bucket.delete("long.jpg")
    gone = await site.take("long.jpg", Range="bytes=100-199")
    assert (gone.status, gone.slug) == (404, "object-not-found")


@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "deleted"])
async def test_an_object_replaced_or_deleted_while_it_streams_is_the_old_one_or_broken(
    patient: Site, replaced: bool
) -> None:
    site, new = patient, pattern(len(HUGE), 3)
    await site.bucket.put("huge.jpg", HUGE)
    site.proxy.faults = Faults(bytes_per_s=4_000_000)
    begin = site.proxy.bytes_down
    reading = asyncio.create_task(site.take("huge.jpg"))
    await eventually(lambda: site.proxy.bytes_down > begin + 500_000)
    await (site.bucket.put("huge.jpg", new) if replaced else site.bucket.delete("huge.jpg"))
    site.proxy.heal()
    got = await reading
    assert HUGE.startswith(got.body)
    assert got.whole == (len(got.body) == len(HUGE))
    again = await site.take("huge.jpg")
    if replaced:
        assert (again.whole, again.body == new) == (True, True)
        assert again.headers["etag"] != got.headers["etag"]
    else:
        assert (again.status, again.slug) == (404, "object-not-found")


async def test_an_object_replaced_before_it_is_resumed_is_never_mixed(patient: Site) -> None:
    site = patient
    failed = await counted(site.service.admin, 'framegate_upstream_resumes_total{outcome="failed"}')
    for new in (pattern(LONG_BYTES, 3), pattern(LONG_BYTES // 3, 4), None):
        await site.bucket.put("long.jpg", LONG)
        site.proxy.faults = Faults(stall_after=600_000, answers=1)
        begin = site.proxy.bytes_down
        reading = asyncio.create_task(site.take("long.jpg"))
        await eventually(lambda begin=begin: site.proxy.bytes_down >= begin + 600_000)  # type: ignore[misc]
        await (site.bucket.delete("long.jpg") if new is None else site.bucket.put("long.jpg", new))
        await site.proxy.drop()
        assert_broken(await reading, LONG)
    assert (
        await counted(site.service.admin, 'framegate_upstream_resumes_total{outcome="failed"}') == failed + 3
    )


# --- latency, rate, refused and back, DNS ---------------------------------------------------------------


async def test_100_ms_of_latency_cost_time_and_nothing_else(site: Site) -> None:
    site.proxy.faults = Faults(latency_s=0.1)
    answers = await asyncio.gather(*(site.take("small.jpg") for _ in range(20)))
    assert {(got.status, got.body == SMALL) for got in answers} == {(200, True)}


async def test_2_s_of_latency_or_200_kb_per_s_cost_time_and_nothing_else(patient: Site) -> None:
    site = patient
    await site.bucket.put("small.jpg", SMALL)
    await site.bucket.put("long.jpg", LONG[:300_000])
    site.proxy.faults = Faults(latency_s=2)
    far = await asyncio.gather(*(site.take("small.jpg") for _ in range(20)))
    assert {(got.status, got.body == SMALL) for got in far} == {(200, True)}
    site.proxy.faults = Faults(bytes_per_s=200_000)
    got = await site.take("long.jpg")
    assert (got.status, got.whole, got.body == LONG[:300_000]) == (200, True, True)
    site.proxy.heal()


async def test_a_bucket_that_refuses_connections_is_a_problem_until_it_is_back(site: Site) -> None:
    await site.proxy.refuse()
    await site.proxy.drop()
    for _ in range(3):
        got = await site.take("small.jpg")
        assert (got.status, got.slug) == (502, "storage-error")
    await site.proxy.admit()
    await assert_well(site)


async def test_a_bucket_that_is_back_at_the_next_try_is_not_seen_to_be_away(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    coming: list[asyncio.Task[None]] = []

    def pause(tries: int) -> float:
        coming.append(asyncio.create_task(site.proxy.admit()))
        return 0.1

    monkeypatch.setattr(retries, "backoff_s", pause)
    await site.proxy.refuse()
    await site.proxy.drop()
    retried = await counted(site.service.admin, 'framegate_upstream_retries_total{reason="refused"}')
    await assert_whole(site, "small.jpg")
    assert await counted(site.service.admin, 'framegate_upstream_retries_total{reason="refused"}') > retried
    await assert_well(site)


async def test_a_name_that_is_gone_is_a_problem_until_it_is_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, resolve = {"bucket.framegate.test": "127.0.0.1"}, socket.getaddrinfo

    def look_up(host: Any, *more: Any, **options: Any) -> Any:
        if host != "bucket.framegate.test":
            return resolve(host, *more, **options)
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(known[host], *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    body = behind(site.proxy, site.bucket)
    body["source"]["endpoint_url"] = f"http://bucket.framegate.test:{site.proxy.port}"
    named = replace(site, storage_id=await site.service.attach(body))
    await assert_whole(named)
    known.clear()
    await assert_whole(named)  # by the connections that are open already
    await site.proxy.drop()
    got = await named.take("small.jpg")
    assert (got.status, got.slug) == (502, "storage-error")
    assert b"does not resolve" in got.body
    known["bucket.framegate.test"] = "127.0.0.1"
    await assert_whole(named)


# --- everything back to where it was -------------------------------------------------------------------


def held() -> int:
    """How many connections and bodies are in memory."""
    gc.collect()
    return sum(isinstance(thing, Connection | BodyStream | ResumingStream) for thing in gc.get_objects())


def memory_bytes() -> int:
    """What this process, and so the service in it, takes of the machine's memory (0 where it is not told)."""
    if not Path("/proc/self/statm").exists():
        return 0
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_many_failures_leave_connections_places_tasks_and_memory_as_they_were(site: Site) -> None:
    await assert_well(site)
    tasks, things, memory = len(asyncio.all_tasks()), held(), memory_bytes()
    faults = [
        Faults(cut_after=500),
        Faults(cut_after=500_000, cut_with="fin"),
        Faults(instead=refusal("503 Slow Down", "SlowDown")),
        Faults(length_off_by=10, cut_after=SMALL_BYTES, cut_with="fin", answers=20),
        Faults(stall_after=800_000, answers=20),
        Faults(cut_before_head=True),  # the last, since it ends the connections that are kept
    ]
    for fault in faults:
        site.proxy.faults = fault
        answers = await asyncio.gather(*(site.take(key) for key in (*OBJECTS,) * 10))
        assert all(not got.whole or got.slug or got.body in {SMALL, LONG} for got in answers)
    await assert_well(site)
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
    counts = (await site.opened())._upstream._sender.connection_counts()  # type: ignore[attr-defined]
    assert all(opened == idle <= ONE_READER for opened, idle in counts.values())
    await eventually(lambda: held() <= things + ONE_READER)
    assert memory_bytes() - memory < 64 * 1024 * 1024
