"""One suite of writes for every provider, against real servers: whole objects or nothing, whatever stands behind.

What a test server cannot do is written down in `LIMITS`, and the suite then expects exactly that.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
import pytest_asyncio
from pydantic import SecretStr

from app.errors import (
    IncompleteBodyError,
    ObjectMissingError,
    PreconditionFailedError,
    ReadOnlyCredentialError,
    ThrottledError,
    UpstreamError,
)
from app.storage.base import PLAIN_READ, ReadOptions
from app.storage.bucket import Bucket
from app.storage.gate import Gate
from app.storage.source import AccountKey, Anonymous, AzureSource, KeyPair, S3Source, SasToken, Source
from app.storage.writing import MOST_PARTS, PART_BYTES, part_bytes
from tests.servers.azurite import AzureContainer
from tests.servers.s3 import S3Bucket
from tests.storage.test_conformance import ODD_KEYS, Open, opened, take

__all__ = ["opened"]

MIB = 1024 * 1024
GIB = 1024 * MIB
PIECE_BYTES = 60_000
"""About what a server hands on at a time; no divisor of a part."""
SIZES = [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 20 * MIB]

LIMITS: dict[str, frozenset[str]] = {
    "seaweedfs": frozenset(),
    "juicefs": frozenset({"ignores conditions"}),
    "rclone": frozenset(
        {
            "ignores conditions",
            "completes with a tag that it has not",
            "answers nobody with 400",
        }
    ),
    "azurite-key": frozenset(),
    "azurite-sas": frozenset(),
}


@dataclass(frozen=True, slots=True)
class Backend:
    """One server's fresh bucket, what is left in it besides objects, and a way in that may only read."""

    name: str
    source: Source
    leftovers: Callable[[], Awaitable[int]]
    read_only: Source | None

    def has(self, limit: str) -> bool:
        return limit in LIMITS[self.name]


def of_s3(name: str, made: S3Bucket) -> Backend:
    server = made.server
    admin, reader = (
        KeyPair(keys.access_key_id, SecretStr(keys.secret_access_key))
        for keys in (server.admin, server.reader)
    )
    source = S3Source(made.name, admin, endpoint_url=server.endpoint_url)

    async def leftovers() -> int:
        try:
            answer = await made.client.list_multipart_uploads(Bucket=made.name)
        except made.client.exceptions.NoSuchUpload:  # how rclone says that there never was one
            return 0
        return len(answer.get("Uploads", []))

    return Backend(name, source, leftovers, replace(source, auth=reader) if reader != admin else None)


def of_azure(name: str, made: AzureContainer) -> Backend:
    server, client = made.server, made.client
    reader = SasToken(SecretStr(server.container_sas(made.name)))
    writer = SasToken(SecretStr(server.container_sas(made.name, "rlcwd")))
    auth = writer if name == "azurite-sas" else AccountKey(SecretStr(server.account_key))
    source = AzureSource(made.name, auth, server.account_name, server.endpoint_url)

    async def leftovers() -> int:
        blobs = [blob async for blob in client.list_blobs(include=["uncommittedblobs"])]
        return sum(blob.etag is None for blob in blobs)

    return Backend(name, source, leftovers, replace(source, auth=reader))


@pytest_asyncio.fixture(params=list(LIMITS))
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    name = request.param
    fixture = {"seaweedfs": "s3", "juicefs": "juicefs_s3", "rclone": "rclone_s3"}.get(name, "azurite")
    server = request.getfixturevalue(fixture)
    if fixture == "azurite":
        async with server.container() as container:
            yield of_azure(name, container)
    else:
        async with server.bucket() as bucket:
            yield of_s3(name, bucket)


def pattern(size_bytes: int) -> bytes:
    """Bytes in which a part that is lost, doubled or moved shows."""
    block = b"".join(number.to_bytes(4, "big") for number in range(65_536))
    return (block * (size_bytes // len(block) + 1))[:size_bytes]


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]


async def write(
    bucket: Bucket,
    key: str,
    body: bytes,
    media_type: str = "image/jpeg",
    conditions: ReadOptions = PLAIN_READ,
) -> str | None:
    return await bucket.write(key, pieces(body), media_type, conditions, most_bytes=GIB)


@pytest.mark.parametrize("size_bytes", SIZES)
async def test_what_is_written_is_read_with_the_tag_that_was_answered(
    backend: Backend, opened: Open, size_bytes: int
) -> None:
    bucket, body = await opened(backend.source), pattern(size_bytes)
    etag = await write(bucket, "pets/beagle.jpg", body)
    read = await bucket.open("pets/beagle.jpg")
    assert await take(read) == body
    assert (read.meta.size_bytes, read.meta.media_type) == (size_bytes, "image/jpeg")
    unsure = size_bytes > PART_BYTES and backend.has("completes with a tag that it has not")
    assert etag == (None if unsure else read.meta.etag)
    assert read.meta.etag is not None
    if etag is not None and isinstance(backend.source, S3Source):  # S3's tags of parts count them
        assert ("-" in etag) == (size_bytes > PART_BYTES)
    assert await backend.leftovers() == 0
    assert not bucket.busy


@pytest.mark.parametrize("key", ODD_KEYS)
async def test_a_key_with_odd_characters_is_written_as_it_is(
    backend: Backend, opened: Open, key: str
) -> None:
    bucket = await opened(backend.source)
    await write(bucket, key, key.encode())
    assert await take(await bucket.open(key)) == key.encode()
    assert [item.key for item in (await bucket.list()).items if not item.is_prefix] == [key]
    await bucket.delete(key)
    with pytest.raises(ObjectMissingError):
        await bucket.head(key)


async def going_away(body: bytes) -> AsyncIterator[bytes]:
    """A body that breaks off after these bytes."""
    async for piece in pieces(body):
        yield piece
    raise IncompleteBodyError("gone")


@pytest.mark.parametrize("size_bytes", [0, 100, PART_BYTES, PART_BYTES + 1, 30 * MIB])
async def test_a_body_that_breaks_off_leaves_nothing(backend: Backend, opened: Open, size_bytes: int) -> None:
    bucket = await opened(backend.source)
    with pytest.raises(IncompleteBodyError):
        await bucket.write("k", going_away(pattern(size_bytes)), "image/png", most_bytes=GIB)
    with pytest.raises(ObjectMissingError):
        await bucket.head("k")
    # Azure has no request that takes blocks away; they go by themselves after a week.
    assert await backend.leftovers() == 0 or backend.name.startswith("azurite")
    assert not bucket.busy


@pytest.mark.parametrize("size_bytes", [100, PART_BYTES + 1])
async def test_a_write_that_is_cancelled_leaves_nothing(
    backend: Backend, opened: Open, size_bytes: int
) -> None:
    bucket, waits = await opened(backend.source), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield pattern(size_bytes)
        waits.set()
        await asyncio.sleep(60)

    writing = asyncio.create_task(bucket.write("k", body(), "image/png", most_bytes=GIB))
    await waits.wait()
    await asyncio.sleep(0.3)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    with pytest.raises(ObjectMissingError):
        await bucket.head("k")
    assert await backend.leftovers() == 0 or backend.name.startswith("azurite")
    assert not bucket.busy


async def test_a_write_cancelled_at_any_moment_leaves_nothing(backend: Backend, opened: Open) -> None:
    bucket = await opened(backend.source)
    for pause_s in (0, 0.001, 0.003, 0.01, 0.03, 0.1):
        writing = asyncio.create_task(write(bucket, "k", pattern(PART_BYTES + 1)))
        await asyncio.sleep(pause_s)
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
    await bucket.aclose()
    assert await backend.leftovers() == 0 or backend.name.startswith("azurite")


async def test_an_upload_that_is_begun_for_nobody_is_aborted() -> None:
    provider = Slow()
    provider.may_begin.clear()
    bucket = Bucket(cast("Any", provider), cast("Any", None), Gate(1, 0))
    writing = asyncio.create_task(write(bucket, "k", pattern(PART_BYTES + 1)))
    await provider.asked.wait()
    writing.cancel()
    await asyncio.sleep(0)
    provider.may_begin.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert (provider.aborted, provider.held, bucket.busy) == (True, 0, False)


@pytest.mark.parametrize("size_bytes", [100, PART_BYTES + 1], ids=["short", "long"])
async def test_conditions_hold_or_nothing_is_written(backend: Backend, opened: Open, size_bytes: int) -> None:
    bucket, body = await opened(backend.source), pattern(size_bytes)

    async def written(key: str, **conditions: Any) -> None:
        await write(bucket, key, body, conditions=ReadOptions(**conditions))

    await written("k", if_none_match=("*",))
    meta = (await bucket.head("k")).meta
    assert meta.etag is not None
    assert meta.last_modified is not None
    long_ago = meta.last_modified - timedelta(days=1)
    for failing in (
        {"if_none_match": ("*",)},
        {"if_none_match": ('"x"', meta.etag)},
        {"if_match": ('"x"', '"y"')},
        {"if_match": (f"W/{meta.etag}",)},
        {"if_unmodified_since": long_ago},
    ):
        with pytest.raises(PreconditionFailedError):
            await written("k", **failing)
        with pytest.raises(PreconditionFailedError):
            await bucket.delete("k", ReadOptions(**failing))
    for failing in ({"if_match": ("*",)}, {"if_match": (meta.etag,)}):
        with pytest.raises(PreconditionFailedError):
            await written("missing", **failing)
        with pytest.raises(ObjectMissingError):
            await bucket.delete("missing", ReadOptions(**failing))
    assert (await bucket.head("k")).meta == meta
    assert await backend.leftovers() == 0
    await written("k", if_match=('"x"', meta.etag))
    await written("k", if_match=("*",))
    await written("k", if_none_match=('"x"',), if_unmodified_since=datetime.now(UTC) + timedelta(days=1))
    etag = (await bucket.head("k")).meta.etag
    assert etag is not None
    await bucket.delete("k", ReadOptions(if_match=(etag,)))
    with pytest.raises(ObjectMissingError):
        await bucket.delete("k")


async def test_a_change_between_condition_and_write_is_found_where_the_bucket_can(
    backend: Backend, opened: Open
) -> None:
    """The body comes after the HEAD, so another writer may be faster meanwhile."""
    bucket, other = await opened(backend.source), await opened(backend.source)

    def overtaken(key: str, body: bytes) -> AsyncIterator[bytes]:
        async def slow() -> AsyncIterator[bytes]:
            await write(other, key, b"other")
            async for piece in pieces(body):
                yield piece

        return slow()

    async def write_late(key: str, body: bytes, **conditions: Any) -> None:
        await bucket.write(key, overtaken(key, body), "image/png", ReadOptions(**conditions), most_bytes=GIB)

    for number, body in enumerate((pattern(100), pattern(PART_BYTES + 1))):
        key = f"k{number}"
        if backend.has("ignores conditions"):
            await write_late(key, body, if_none_match=("*",))
            assert await take(await bucket.open(key)) == body
            continue
        with pytest.raises(PreconditionFailedError):
            await write_late(key, body, if_none_match=("*",))
        await write(bucket, key, b"mine")
        with pytest.raises(PreconditionFailedError):
            await write_late(key, body, if_match=("*",))
        assert await take(await bucket.open(key)) == b"other"
    assert await backend.leftovers() == 0


async def test_a_credential_that_may_only_read_is_named(backend: Backend, opened: Open) -> None:
    if backend.read_only is None:  # these servers have one identity
        return
    await write(await opened(backend.source), "k", b"x")
    reader = await opened(backend.read_only)
    for act in (write(reader, "k", b"y"), write(reader, "k", pattern(PART_BYTES + 1)), reader.delete("k")):
        with pytest.raises(ReadOnlyCredentialError) as caught:
            await act
        assert caught.value.at.startswith("auth")
        assert "rite" in caught.value.remedy
    assert await take(await reader.open("k")) == b"x"


async def test_nobody_writes_without_a_credential(backend: Backend, opened: Open) -> None:
    nobody = await opened(replace(backend.source, auth=Anonymous()))
    for body in (b"x", pattern(PART_BYTES + 1)):
        if backend.has("answers nobody with 400"):
            with pytest.raises(UpstreamError, match="400"):
                await write(nobody, "k", body)
        else:
            with pytest.raises(ReadOnlyCredentialError, match="no credential"):
                await write(nobody, "k", body)


async def test_many_writers_at_once_do_not_mix(backend: Backend, opened: Open) -> None:
    bucket = await opened(backend.source, 3)
    bodies = {f"k{number}": bytes([number]) * (PART_BYTES + 1 + number) for number in range(5)}
    await asyncio.gather(*(write(bucket, key, body) for key, body in bodies.items()))
    for key, body in bodies.items():
        assert await take(await bucket.open(key)) == body
    assert not bucket.busy


def test_parts_grow_when_ten_thousand_would_not_do() -> None:
    assert part_bytes(0) == part_bytes(MOST_PARTS * PART_BYTES) == PART_BYTES
    for most_bytes in (MOST_PARTS * PART_BYTES + 1, 5 * 1024 * GIB):
        assert PART_BYTES < part_bytes(most_bytes) < 5 * GIB
        assert -(-most_bytes // part_bytes(most_bytes)) <= MOST_PARTS


async def test_no_more_is_taken_from_a_body_than_the_bucket_takes() -> None:
    """A bucket that stores nothing, and counts what is in its hands."""
    provider = Slow()
    bucket = Bucket(cast("Any", provider), cast("Any", None), Gate(1, 1))
    taken = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(100):
            taken += MIB
            yield bytes(MIB)

    writing = asyncio.create_task(bucket.write("k", body(), "image/png", most_bytes=GIB))
    for done in range(3):
        while provider.held < 2:
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        assert provider.held == 2
        assert taken <= (done + 3) * PART_BYTES + MIB
        provider.take_one()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert provider.aborted


async def test_the_gate_bounds_what_the_bucket_is_given_at_once() -> None:
    provider = Slow()
    bucket = Bucket(cast("Any", provider), cast("Any", None), Gate(1, 0))
    long = asyncio.create_task(write(bucket, "k", pattern(PART_BYTES + 1)))
    while provider.held < 2:
        await asyncio.sleep(0.01)
    with pytest.raises(ThrottledError):
        await write(bucket, "k2", b"x")
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await long
    assert not bucket.busy


class Slow:
    """A provider that takes a part when it is told to."""

    def __init__(self) -> None:
        self.held, self.aborted = 0, False
        self.asked, self.may_begin = asyncio.Event(), asyncio.Event()
        self.may_begin.set()
        self._parts: list[asyncio.Future[None]] = []

    async def begin(self, key: str, media_type: str | None) -> "Slow":
        self.asked.set()
        await self.may_begin.wait()
        return self

    async def put_part(self, number: int, body: bytes) -> None:
        self.held += 1
        self._parts.append(asyncio.get_running_loop().create_future())
        await self._parts[-1]

    def take_one(self) -> None:
        self.held -= 1
        self._parts.pop(0).set_result(None)

    async def abort(self) -> None:
        self.aborted = True
