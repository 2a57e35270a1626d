"""One suite for every provider, against real servers: what a reader may rely on, whatever stands behind.

What a test server cannot do is written down in `LIMITS`, and the suite then expects exactly that.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr

from app.errors import (
    AccessDeniedError,
    BucketMissingError,
    InvalidInputError,
    ObjectMissingError,
    PreconditionFailedError,
    RangeNotSatisfiableError,
    ThrottledError,
    UpstreamError,
)
from app.storage.base import ByteRange, ListedObject, ObjectRead, ReadOptions, Suffix
from app.storage.bucket import Bucket
from app.storage.gate import Gate
from app.storage.guard import Guard
from app.storage.providers import open_provider
from app.storage.sdk import SharedSession
from app.storage.source import (
    AccountKey,
    Anonymous,
    AzureSource,
    ConnectionString,
    KeyPair,
    S3Source,
    SasToken,
    Source,
)
from app.storage.tls import tls_context
from app.storage.transport import Transport

SMALL = bytes(range(256)) * 4
LARGE = SMALL * 1024
"""1 MiB: more than is read whole, so that it comes as a stream."""

ODD_KEYS = [
    "a b/c d.jpg",
    "100%/50%25.jpg",
    "a+b.jpg",
    "why?.jpg",
    "#1/#.jpg",
    "é/漢字/🐈.jpg",
    "~tilde/(round)[square]{curly}'quote'.jpg",
    "a&b=c;d,e:f@g$h!i.jpg",
    "x%2Fy.jpg",
    "UPPER/lower.JPG",
    "dots.../..hidden/a..b",
]
SLASHES = "a//b.jpg"

LIMITS: dict[str, frozenset[str]] = {
    "seaweedfs": frozenset({"// is stored as /"}),
    "juicefs": frozenset({"// is stored as /"}),
    "rclone": frozenset({"// is refused"}),
    "azurite-key": frozenset(),
    "azurite-sas": frozenset(),
    "azurite-connection-string": frozenset(),
}


@dataclass(frozen=True, slots=True)
class Backend:
    """One server's fresh bucket: how to open it, and how to fill it behind our back."""

    name: str
    source: Source
    put: Callable[..., Awaitable[str]]
    delete: Callable[[str], Awaitable[None]]
    wrong_secret: Source
    missing: Source

    def has(self, limit: str) -> bool:
        return limit in LIMITS[self.name]


Open = Callable[..., Awaitable[Bucket]]


@asynccontextmanager
async def s3_backend(name: str, server: Any) -> AsyncIterator[Backend]:
    async with server.bucket() as bucket:
        keys = KeyPair(server.admin.access_key_id, SecretStr(server.admin.secret_access_key))
        source = S3Source(bucket.name, keys, endpoint_url=server.endpoint_url)
        wrong = replace(keys, secret_access_key=SecretStr("wrong" * 8))
        yield Backend(
            name,
            source,
            bucket.put,
            bucket.delete,
            replace(source, auth=wrong),
            replace(source, bucket="not-there"),
        )


@asynccontextmanager
async def azure_backend(name: str, server: Any) -> AsyncIterator[Backend]:
    async with server.container() as container:
        other = base64.b64encode(b"another key" * 5).decode()
        auth: Any = {
            "azurite-key": lambda: (
                AccountKey(SecretStr(server.account_key)),
                AccountKey(SecretStr(other)),
            ),
            "azurite-sas": lambda: (
                SasToken(SecretStr(server.container_sas(container.name))),
                SasToken(SecretStr(server.container_sas(container.name)[:-4] + "x%3D")),
            ),
            "azurite-connection-string": lambda: (
                ConnectionString(SecretStr(server.connection_string)),
                ConnectionString(SecretStr(server.connection_string.replace(server.account_key, other))),
            ),
        }[name]()
        source = AzureSource(container.name, auth[0], server.account_name, server.endpoint_url)
        if name == "azurite-connection-string":
            source = AzureSource(container.name, auth[0])
        lost = AzureSource(
            "not-there", AccountKey(SecretStr(server.account_key)), server.account_name, server.endpoint_url
        )
        yield Backend(name, source, container.put, container.delete, replace(source, auth=auth[1]), lost)


@pytest_asyncio.fixture(params=list(LIMITS))
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    name = request.param
    fixture = {"seaweedfs": "s3", "juicefs": "juicefs_s3", "rclone": "rclone_s3"}.get(name, "azurite")
    server = request.getfixturevalue(fixture)
    make = azure_backend if fixture == "azurite" else s3_backend
    async with make(name, server) as made:
        yield made


@pytest_asyncio.fixture
async def opened() -> AsyncIterator[Open]:
    guard, tls = Guard(["127.0.0.1"]), tls_context()
    async with AsyncExitStack() as stack:
        shared, transport = SharedSession(guard, tls), Transport(guard, tls)
        stack.push_async_callback(shared.aclose)
        stack.push_async_callback(transport.aclose)

        async def open_bucket(source: Source, concurrency: int = 16) -> Bucket:
            bucket = Bucket(
                await open_provider(source, shared), transport, Gate(concurrency, 100), source.prefix
            )
            stack.push_async_callback(bucket.aclose)
            return bucket

        yield open_bucket


async def take(read: ObjectRead) -> bytes:
    if isinstance(read.body, bytes):
        return read.body
    try:
        return b"".join([chunk async for chunk in read.body])
    finally:
        await read.body.aclose()


async def list_all(
    bucket: Bucket, prefix: str = "", delimiter: str = "", limit: int = 1000
) -> list[ListedObject]:
    items: list[ListedObject] = []
    cursor = None
    while True:
        page = await bucket.list(prefix, delimiter, cursor, limit)
        assert len(page.items) <= limit
        items += page.items
        cursor = page.cursor
        if cursor is None:
            return items


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
async def test_every_range_gives_the_exact_bytes(backend: Backend, opened: Open, body: bytes) -> None:
    await backend.put("x.jpg", body, "image/jpeg")
    bucket, size = await opened(backend.source), len(body)
    for wanted, start, stop in (
        (ByteRange(0, 1), 0, 1),
        (ByteRange(size - 1, size), size - 1, size),
        (ByteRange(100, 200), 100, 200),
        (ByteRange(100), 100, size),
        (ByteRange(size - 5, size + 100), size - 5, size),
        (ByteRange(0), 0, size),
        (Suffix(1), size - 1, size),
        (Suffix(700), size - 700, size),
        (Suffix(size + 1), 0, size),
    ):
        read = await bucket.open("x.jpg", ReadOptions(range=wanted))
        assert (read.part, read.meta.size_bytes) == ((start, stop), size), wanted
        assert await take(read) == body[start:stop], wanted
    for unsatisfiable in (ByteRange(size), ByteRange(size + 5, size + 9), Suffix(0)):
        with pytest.raises(RangeNotSatisfiableError) as caught:
            await bucket.open("x.jpg", ReadOptions(range=unsatisfiable))
        assert caught.value.size_bytes == size


async def test_an_empty_object_is_whole_and_has_no_part(backend: Backend, opened: Open) -> None:
    await backend.put("empty", b"")
    bucket = await opened(backend.source)
    for options in (ReadOptions(), ReadOptions(range=Suffix(5))):
        read = await bucket.open("empty", options)
        assert (await take(read), read.part, read.meta.size_bytes) == (b"", None, 0)
    for wanted in (ByteRange(0), ByteRange(0, 1)):
        with pytest.raises(RangeNotSatisfiableError) as caught:
            await bucket.open("empty", ReadOptions(range=wanted))
        assert caught.value.size_bytes == 0


@pytest.mark.parametrize("key", ODD_KEYS)
async def test_a_key_with_odd_characters_is_read_and_listed_as_it_is(
    backend: Backend, opened: Open, key: str
) -> None:
    await backend.put(key, key.encode())
    bucket = await opened(backend.source)
    assert await take(await bucket.open(key)) == key.encode()
    assert (await bucket.head(key)).meta.size_bytes == len(key.encode())
    assert [item.key for item in await list_all(bucket) if not item.is_prefix] == [key]
    assert [item.key for item in await list_all(bucket, key[:3])] == [key]


async def test_two_slashes_are_two_slashes(backend: Backend, opened: Open) -> None:
    bucket = await opened(backend.source)
    if backend.has("// is refused"):
        with pytest.raises(UpstreamError, match="400"):
            await bucket.open(SLASHES)
        return
    await backend.put(SLASHES, SMALL)
    assert await take(await bucket.open(SLASHES)) == SMALL
    stored = "a/b.jpg" if backend.has("// is stored as /") else SLASHES
    assert [item.key for item in await list_all(bucket)] == [stored]


async def test_a_missing_object_is_missing_by_get_and_head(backend: Backend, opened: Open) -> None:
    bucket = await opened(backend.source)
    for method in (bucket.open, bucket.head):
        with pytest.raises(ObjectMissingError) as caught:
            await method("not there/é.jpg")
        assert caught.value.key == "not there/é.jpg"


async def test_a_missing_bucket_is_named(backend: Backend, opened: Open) -> None:
    bucket = await opened(backend.missing)
    for act in (bucket.check_access(), bucket.open("k"), bucket.list()):
        with pytest.raises(BucketMissingError) as caught:
            await act
        assert caught.value.at == ("container" if isinstance(backend.source, AzureSource) else "bucket")
        assert caught.value.remedy


async def test_a_wrong_secret_is_named_and_never_shown(backend: Backend, opened: Open) -> None:
    await backend.put("k", b"x")
    bucket = await opened(backend.wrong_secret)
    for act in (bucket.check_access(), bucket.open("k"), bucket.head("k"), bucket.list()):
        with pytest.raises(AccessDeniedError) as caught:
            await act
        assert "wrong" not in str(caught.value)


async def test_a_right_credential_passes_the_check(backend: Backend, opened: Open) -> None:
    await (await opened(backend.source)).check_access()


async def test_etags_hit_and_miss(backend: Backend, opened: Open) -> None:
    await backend.put("k", LARGE)
    bucket = await opened(backend.source)
    etag = (await bucket.head("k")).meta.etag
    assert etag is not None
    for hit in ((etag,), ('"other"', etag), (f"W/{etag.removeprefix('W/')}",), ("*",)):
        read = await bucket.open("k", ReadOptions(if_none_match=hit))
        assert (read.not_modified, read.body, read.meta.etag) == (True, b"", etag), hit
    read = await bucket.open("k", ReadOptions(if_none_match=('"other"',)))
    assert await take(read) == LARGE
    read = await bucket.open("k", ReadOptions(if_match=(etag,), range=Suffix(3)))
    assert await take(read) == LARGE[-3:]
    for options in (ReadOptions(if_match=('"other"',)), ReadOptions(if_match=('"other"',), range=Suffix(3))):
        with pytest.raises(PreconditionFailedError):
            await bucket.open("k", options)


async def test_a_replaced_object_is_not_continued(backend: Backend, opened: Open) -> None:
    await backend.put("k", b"1" * 1000)
    bucket = await opened(backend.source)
    first = await bucket.open("k", ReadOptions(range=ByteRange(0, 10)))
    assert await take(first) == b"1" * 10
    await backend.put("k", b"2" * 1000)
    again = await bucket.open("k", ReadOptions(range=ByteRange(10), if_range=first.meta.etag))
    assert (again.part, await take(again)) == (None, b"2" * 1000)
    same = await bucket.open("k", ReadOptions(range=ByteRange(10), if_range=again.meta.etag))
    assert (same.part, await take(same)) == ((10, 1000), b"2" * 990)


async def test_head_equals_get(backend: Backend, opened: Open) -> None:
    await backend.put("x.jpg", SMALL, "image/jpeg")
    bucket = await opened(backend.source)
    head, got = await bucket.head("x.jpg", ReadOptions(range=ByteRange(5))), await bucket.open("x.jpg")
    assert head.meta == got.meta
    assert (head.body, got.body, head.meta.media_type) == (b"", SMALL, "image/jpeg")


async def test_a_listing_tells_size_tag_time_and_type(backend: Backend, opened: Open) -> None:
    await backend.put("x.jpg", SMALL, "image/jpeg")
    bucket = await opened(backend.source)
    (item,) = await list_all(bucket)
    meta = (await bucket.head("x.jpg")).meta
    assert (item.size_bytes, item.etag, item.media_type) == (len(SMALL), meta.etag, "image/jpeg")
    assert item.last_modified is not None
    assert meta.last_modified is not None
    assert abs((item.last_modified - meta.last_modified).total_seconds()) <= 1


async def test_pages_hold_every_key_exactly_once(backend: Backend, opened: Open) -> None:
    keys = {f"dir{number % 3}/picture-{number:03d}.jpg" for number in range(25)}
    await asyncio.gather(*(backend.put(key, b"x") for key in keys))
    bucket = await opened(backend.source)
    for limit in (1, 7, 25, 1000):
        assert sorted(item.key for item in await list_all(bucket, limit=limit)) == sorted(keys), limit
    assert {item.key for item in await list_all(bucket, "dir1/")} == {key for key in keys if key[3] == "1"}
    folders = await list_all(bucket, delimiter="/", limit=2)
    assert sorted((item.key, item.is_prefix) for item in folders) == [(f"dir{n}/", True) for n in range(3)]


async def test_a_forged_cursor_is_a_fault_or_a_page_never_a_crash(backend: Backend, opened: Open) -> None:
    await backend.put("k", b"x")
    bucket = await opened(backend.source)
    with suppress(InvalidInputError):
        await bucket.list("", "", "forged cursor é/%", 10)
    with suppress(InvalidInputError):
        await bucket.list("", "/", "forged", 10)


async def test_a_reader_cancelled_midway_frees_its_connection(backend: Backend, opened: Open) -> None:
    await backend.put("k", LARGE)
    bucket = await opened(backend.source, 1)

    async def read_slowly() -> None:
        read = await bucket.open("k")
        assert not isinstance(read.body, bytes)
        try:
            async for _ in read.body:
                await asyncio.sleep(10)
        finally:
            await read.body.aclose()

    for _ in range(3):
        task = asyncio.create_task(read_slowly())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not bucket.busy
    assert await take(await bucket.open("k")) == LARGE


async def test_more_readers_than_connections_are_all_served(backend: Backend, opened: Open) -> None:
    await backend.put("k", LARGE)
    bucket = await opened(backend.source, 4)

    async def read() -> bool:
        return await take(await bucket.open("k")) == LARGE

    assert all(await asyncio.gather(*(read() for _ in range(40))))
    with pytest.raises(ThrottledError):
        await asyncio.gather(*(read() for _ in range(200)))


async def test_the_write_check_leaves_nothing(backend: Backend, opened: Open) -> None:
    bucket = await opened(backend.source)
    if backend.name == "azurite-sas":
        with pytest.raises(AccessDeniedError):
            await bucket.write_check("framegate probe.txt")
        return
    await bucket.write_check("framegate probe.txt")
    assert await list_all(bucket) == []


async def test_a_bucket_is_knocked_at_without_a_right(backend: Backend, opened: Open) -> None:
    nobody = replace(backend.source, auth=Anonymous())
    if isinstance(nobody, AzureSource) and nobody.account_name is None:
        nobody = replace(nobody, account_name="framegatetests", endpoint_url=backend.missing.endpoint_url)
    bucket = await opened(nobody)
    await bucket.connect_check()
    assert abs(bucket.clock_skew_s) < 60
