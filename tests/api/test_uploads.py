"""Objects written through the service, over a real socket: what is stored, what is refused, and when."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
import pytest_asyncio

from tests.api.conftest import Service, StartService, azure_source, client, s3_body
from tests.servers.azurite import AzureContainer
from tests.servers.s3 import S3Bucket

MIB = 1024 * 1024
BODY = bytes(range(256)) * 50
LONG = BODY * 800
"""10 MB: more than one part."""


def sha256(body: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def azure_body(container: AzureContainer) -> dict[str, Any]:
    return {"display_name": "Pets", "source": azure_source(container)}


async def in_pieces(body: bytes) -> AsyncIterator[bytes]:
    """A body of unknown length."""
    for start in range(0, len(body), 50_000):
        yield body[start : start + 50_000]


async def leftovers(bucket: S3Bucket) -> int:
    answer = await bucket.client.list_multipart_uploads(Bucket=bucket.name)
    return len(answer.get("Uploads", []))


async def keys(bucket: S3Bucket) -> list[str]:
    answer = await bucket.client.list_objects_v2(Bucket=bucket.name)
    return [entry["Key"] for entry in answer.get("Contents", [])]


async def stored(bucket: S3Bucket, key: str) -> bytes:
    answer = await bucket.client.get_object(Bucket=bucket.name, Key=key)
    body: bytes = await answer["Body"].read()
    return body


def slug(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].removeprefix("/problems/")


@pytest_asyncio.fixture
async def objects(service: Service, s3_bucket: S3Bucket) -> str:
    """The path of a fresh bucket's objects."""
    return f"/v1/storages/{await service.attach(s3_body(s3_bucket))}/objects"


@pytest.mark.parametrize("body", [b"", b"x", BODY, LONG], ids=["empty", "one", "short", "long"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_is_stored_as_it_was_sent(
    service: Service, s3_bucket: S3Bucket, objects: str, body: bytes, chunked: bool
) -> None:
    key = "pets/é a+b%.jpg"
    path = f"{objects}/{httpx.URL('http://x').copy_with(path='/' + key).raw_path.decode()[1:]}"
    answer = await service.admin.put(path.replace("+", "%2B"), content=in_pieces(body) if chunked else body)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["x-request-id"]
    assert await stored(s3_bucket, key) == body
    read = await service.admin.get(path.replace("+", "%2B"))
    assert (read.content, read.headers["etag"]) == (body, answer.headers["etag"])
    assert read.headers["content-type"] == "image/jpeg"
    assert await leftovers(s3_bucket) == 0


async def test_azure_takes_the_same(service: Service, azure_container: AzureContainer) -> None:
    path = f"/v1/storages/{await service.attach(azure_body(azure_container))}/objects/a.png"
    for body in (BODY, LONG):
        answer = await service.admin.put(path, content=body, headers={"Repr-Digest": sha256(body)})
        assert answer.status_code == 200, answer.text
        read = await service.admin.get(path)
        assert (read.content, read.headers["etag"]) == (body, answer.headers["etag"])
    assert (await service.admin.put(path, content=b"x", headers={"If-None-Match": "*"})).status_code == 412
    assert (await service.admin.delete(path)).status_code == 204
    assert slug(await service.admin.delete(path)) == (404, "object-not-found")


@pytest.mark.parametrize(
    ("key", "sent", "kept"),
    [
        ("a.bin", "image/png", "image/png"),
        ("a.txt", "Text/Plain; charset=UTF-8; format=flowed", "text/plain; charset=utf-8"),
        ("a.jpg", "application/x-www-form-urlencoded", "image/jpeg"),
        ("a.jpg", None, "image/jpeg"),
        ("a.jpg", "text/html", "application/octet-stream"),
        ("a.html", None, "application/octet-stream"),
        ("a", "not a type", "application/octet-stream"),
    ],
)
async def test_the_stored_type_is_one_of_the_table(
    service: Service, azure_container: AzureContainer, key: str, sent: str | None, kept: str
) -> None:
    path = f"/v1/storages/{await service.attach(azure_body(azure_container))}/objects/{key}"
    headers = {} if sent is None else {"Content-Type": sent}
    for body in (b"x", LONG):
        assert (await service.admin.put(path, content=body, headers=headers)).status_code == 200
        blob = await azure_container.client.get_blob_client(key).get_blob_properties()
        assert blob.content_settings.content_type == kept


async def test_conditions_decide_whether_it_is_written(
    service: Service, s3_bucket: S3Bucket, objects: str
) -> None:
    path, put = f"{objects}/a.jpg", service.admin.put
    created = await put(path, content=b"1", headers={"If-None-Match": "*"})
    assert created.status_code == 200
    etag = created.headers["etag"]
    for failing in (
        {"If-None-Match": "*"},
        {"If-None-Match": f'"x", {etag}'},
        {"If-Match": '"other"'},
        {"If-Match": f"W/{etag}"},
        {"If-Unmodified-Since": "Mon, 01 Jan 2001 00:00:00 GMT"},
    ):
        for body in (b"2", LONG):
            assert slug(await put(path, content=body, headers=failing)) == (412, "precondition-failed"), (
                failing
            )
        assert slug(await service.admin.delete(path, headers=failing)) == (412, "precondition-failed")
    assert await stored(s3_bucket, "a.jpg") == b"1"
    assert await leftovers(s3_bucket) == 0
    missing = {"If-Match": "*"}
    assert slug(await put(f"{objects}/b.jpg", content=b"2", headers=missing)) == (412, "precondition-failed")
    for number, holding in enumerate(
        (
            {"If-Match": f'"x", {etag}'},
            {"If-Match": "*"},
            {"If-None-Match": '"x"'},
            {"If-Modified-Since": "x"},
        )
    ):
        assert (await put(path, content=b"%d" % number, headers=holding)).status_code == 200, holding
    assert await stored(s3_bucket, "a.jpg") == b"3"
    etag = (await service.admin.head(path)).headers["etag"]
    assert (await service.admin.delete(path, headers={"If-Match": etag})).status_code == 204
    assert await keys(s3_bucket) == []


async def test_a_condition_that_cannot_be_read_is_no_leave_to_write(
    service: Service, s3_bucket: S3Bucket, objects: str
) -> None:
    for name in ("If-Match", "If-None-Match"):
        for method in ("PUT", "DELETE"):
            answer = await service.admin.request(
                method, f"{objects}/a.jpg", content=b"1", headers={name: "abc"}
            )
            assert slug(answer) == (422, "invalid-request")
            assert [error["pointer"] for error in answer.json()["errors"]] == [f"header:{name}"]
    assert await keys(s3_bucket) == []


@pytest.mark.parametrize("body", [BODY, LONG], ids=["short", "long"])
async def test_a_body_is_stored_only_if_it_is_what_its_digests_say(
    service: Service, s3_bucket: S3Bucket, objects: str, body: bytes
) -> None:
    path, other = f"{objects}/a.jpg", body[:-1] + b"!"
    sha512 = base64.b64encode(hashlib.sha512(body).digest()).decode()
    right = {
        "Content-MD5": md5(body),
        "Repr-Digest": f"unixsum=:AAA=:, sha-512=:{sha512}:;q=1 ,{sha256(body)}",
        "Content-Digest": sha256(body),
    }
    for name, value in right.items():
        refused = await service.admin.put(path, content=other, headers={name: value})
        assert slug(refused) == (422, "invalid-request")
        assert {error["pointer"] for error in refused.json()["errors"]} == {f"header:{name}"}
    assert await keys(s3_bucket) == []
    assert await leftovers(s3_bucket) == 0
    assert (await service.admin.put(path, content=body, headers=right)).status_code == 200
    assert (await service.admin.put(path, content=other, headers={"Repr-Digest": "md5=:AA==:"})).is_success


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Content-MD5", "not base64"),
        ("Content-MD5", md5(b"")[:-4]),
        ("Repr-Digest", "sha-256=abc"),
        ("Repr-Digest", "sha-256=:AA==:"),
        ("Repr-Digest", f"{sha256(b'')},"),
        ("Repr-Digest", "SHA-256=:AA==:"),
    ],
)
async def test_a_digest_that_cannot_be_read_is_refused_before_the_body(
    service: Service, s3_bucket: S3Bucket, objects: str, name: str, value: str
) -> None:
    answer = await service.admin.put(f"{objects}/a.jpg", content=b"", headers={name: value})
    assert slug(answer) == (422, "invalid-request")
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"header:{name}"]
    assert await keys(s3_bucket) == []


async def test_the_limit_holds_for_declared_and_for_chunked_bodies(
    start_service: StartService, s3_bucket: S3Bucket
) -> None:
    async with start_service(max_upload_bytes=9 * MIB, max_body_bytes=1024) as service:
        path = f"/v1/storages/{await service.attach(s3_body(s3_bucket))}/objects/a.jpg"
        over = bytes(9 * MIB + 1)
        for body in (over, in_pieces(over)):
            answer = await service.admin.put(path, content=body)
            assert slug(answer) == (413, "body-too-large")
            assert "FRAMEGATE_MAX_UPLOAD_BYTES" in answer.json()["detail"]
        assert await keys(s3_bucket) == []
        assert await leftovers(s3_bucket) == 0
        for body in (over[1:], in_pieces(over[1:])):
            assert (await service.admin.put(path, content=body)).status_code == 200
        # Every other body keeps the limit of bodies.
        assert (await service.admin.post("/v1/storages", content=bytes(1025))).status_code == 413


async def test_parts_and_codings_are_refused(service: Service, s3_bucket: S3Bucket, objects: str) -> None:
    path = f"{objects}/a.jpg"
    coded = await service.admin.put(path, content=b"x", headers={"Content-Encoding": "gzip"})
    assert slug(coded) == (415, "unsupported-coding")
    assert coded.headers["accept-encoding"] == "identity"
    part = await service.admin.put(path, content=b"x", headers={"Content-Range": "bytes 0-0/9"})
    assert slug(part) == (400, "malformed-request")
    assert await keys(s3_bucket) == []
    assert (await service.admin.put(path, content=b"x", headers={"Content-Encoding": "identity"})).is_success


async def test_keys_that_no_object_can_have_are_refused(service: Service, objects: str) -> None:
    for key, status in (("a%2F..%2Fb", 400), ("a%00b", 400), ("a" * 1025, 400), ("%FF", 400)):
        for method in ("PUT", "DELETE"):
            answer = await service.admin.request(method, f"{objects}/{key}", content=b"x")
            assert answer.status_code == status, key


async def test_deleting_what_is_not_there_is_404(service: Service, s3_bucket: S3Bucket, objects: str) -> None:
    await s3_bucket.put("a.jpg", BODY)
    answer = await service.admin.delete(f"{objects}/a.jpg")
    assert (answer.status_code, answer.content) == (204, b"")
    assert await keys(s3_bucket) == []
    assert slug(await service.admin.delete(f"{objects}/a.jpg")) == (404, "object-not-found")


async def test_a_credential_that_may_only_read_is_403_with_a_remedy(
    service: Service, s3_bucket: S3Bucket, azure_container: AzureContainer
) -> None:
    await s3_bucket.put("a.jpg", BODY)
    await azure_container.put("a.jpg", BODY)
    reader = s3_bucket.server.reader
    body = s3_body(s3_bucket)
    body["source"]["auth"] = {
        "type": "key_pair",
        "access_key_id": reader.access_key_id,
        "secret_access_key": reader.secret_access_key,
    }
    sas = azure_body(azure_container)
    token = azure_container.server.container_sas(azure_container.name)
    sas["source"]["auth"] = {"type": "sas_token", "sas_token": token}
    for one, right in ((body, "s3:PutObject"), (sas, "Write")):
        path = f"/v1/storages/{await service.attach(one)}/objects/a.jpg"
        for answer in (
            await service.admin.put(path, content=b"x"),
            await service.admin.put(path, content=LONG),
            await service.admin.delete(path),
        ):
            assert slug(answer) == (403, "storage-read-only")
            assert right in answer.json()["remedy"]
        assert (await service.admin.get(path)).content == BODY


async def test_who_may_not_see_or_write_is_refused(
    service: Service, s3_bucket: S3Bucket, objects: str
) -> None:
    path = f"{objects}/a.jpg"
    await s3_bucket.put("a.jpg", BODY)
    async with service.user("ben") as ben, client(service.url) as nobody, service.user("wil") as wil:
        own = f"/v1/storages/{(await wil.post('/v1/storages', json=s3_body(s3_bucket))).json()['id']}/objects"
        database = await asyncpg.connect(service.settings.database_url)
        await database.execute("UPDATE users SET role = 'worker' WHERE name = 'wil'")
        await database.close()
        await asyncio.sleep(0.3)
        for method in ("PUT", "DELETE"):
            assert slug(await ben.request(method, path)) == (404, "not-found")
            assert slug(await nobody.request(method, path)) == (401, "unauthenticated")
            assert slug(await wil.request(method, path)) == (404, "not-found")
            assert slug(await wil.request(method, f"{own}/a.jpg")) == (403, "forbidden")
        assert (await wil.get(f"{own}/a.jpg")).status_code == 200
    assert await stored(s3_bucket, "a.jpg") == BODY


async def test_a_signed_url_writes_and_deletes_nothing(
    service: Service, s3_bucket: S3Bucket, objects: str
) -> None:
    await s3_bucket.put("a.jpg", BODY)
    wanted = {"storage_id": int(objects.split("/")[3]), "key": "a.jpg"}
    url = (await service.admin.post("/v1/signed-urls", json=wanted)).json()["url"]
    async with client(service.url) as nobody:
        assert (await nobody.get(url)).content == BODY
        for method in ("PUT", "DELETE"):
            assert slug(await nobody.request(method, url, content=b"x")) == (401, "unauthenticated")
    assert await stored(s3_bucket, "a.jpg") == BODY


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield reader, writer
    finally:
        writer.close()


def head(service: Service, path: str, *headers: str, token: str | None = None) -> bytes:
    authorization = f"Bearer {token}" if token else service.admin.headers["authorization"]
    lines = [f"PUT {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: {authorization}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


async def test_a_body_is_asked_for_only_when_all_is_agreed(
    start_service: StartService, s3_bucket: S3Bucket
) -> None:
    expect = "Expect: 100-continue"
    async with start_service(max_upload_bytes=9 * MIB) as service:
        storage = f"/v1/storages/{await service.attach(s3_body(s3_bucket))}/objects"
        await s3_bucket.put("there.jpg", BODY)
        for status, path, headers, token in (
            (401, f"{storage}/a.jpg", ("Content-Length: 5",), "fg_" + "x" * 32),
            (404, "/v1/storages/999999/objects/a.jpg", ("Content-Length: 5",), None),
            (413, f"{storage}/a.jpg", (f"Content-Length: {9 * MIB + 1}",), None),
            (412, f"{storage}/there.jpg", ("Content-Length: 5", "If-None-Match: *"), None),
            (422, f"{storage}/a.jpg", ("Content-Length: 5", "If-Match: abc"), None),
            (422, f"{storage}/a.jpg", ("Content-Length: 5", "Content-MD5: abc"), None),
            (415, f"{storage}/a.jpg", ("Content-Length: 5", "Content-Encoding: br"), None),
        ):
            async with connection(service.url) as (reader, writer), asyncio.timeout(10):
                writer.write(head(service, path, expect, *headers, token=token))
                # To its end: the connection is closed, since nobody knows whether the body comes after all.
                answer = await reader.read()
                assert answer.startswith(b"HTTP/1.1 %d " % status), answer
                assert b"connection: close" in answer.lower()
        async with connection(service.url) as (reader, writer), asyncio.timeout(10):
            writer.write(head(service, f"{storage}/a.jpg", expect, "Content-Length: 5"))
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"bytes")
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" not in answer.lower()
    assert await stored(s3_bucket, "a.jpg") == b"bytes"


@pytest.mark.parametrize("sent", [BODY, LONG], ids=["short", "long"])
@pytest.mark.parametrize("framing", ["declared", "chunked"])
async def test_a_client_that_goes_away_stores_nothing(
    service: Service, s3_bucket: S3Bucket, objects: str, sent: bytes, framing: str
) -> None:
    declared = framing == "declared"
    length = f"Content-Length: {len(sent) + 1}" if declared else "Transfer-Encoding: chunked"
    async with connection(service.url) as (_, writer):
        writer.write(head(service, f"{objects}/a.jpg", length))
        writer.write(sent if declared else b"%x\r\n%s\r\n" % (len(sent), sent))
        await writer.drain()
        if sent is LONG:
            async with asyncio.timeout(10):
                while await leftovers(s3_bucket) == 0:
                    await asyncio.sleep(0.02)
        writer.transport.abort()
    async with asyncio.timeout(10):
        while await leftovers(s3_bucket) or 'status="408"' not in (await service.admin.get("/metrics")).text:
            await asyncio.sleep(0.02)
    assert await keys(s3_bucket) == []


async def test_a_client_that_sends_nothing_more_is_let_go(
    start_service: StartService, s3_bucket: S3Bucket
) -> None:
    async with start_service(idle_timeout_s=0.3) as service:
        path = f"/v1/storages/{await service.attach(s3_body(s3_bucket))}/objects/a.jpg"
        async with connection(service.url) as (reader, writer), asyncio.timeout(10):
            writer.write(head(service, path, "Content-Length: 100") + b"some")
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"/problems/body-incomplete" in answer
    assert await keys(s3_bucket) == []


async def test_a_browser_may_ask_to_write(start_service: StartService) -> None:
    origin = "https://annotate.example.org"
    async with start_service(cors_origins=origin) as service:
        asked = {"Origin": origin, "Access-Control-Request-Method": "PUT"}
        answer = await service.admin.options("/v1/storages/1/objects/a.jpg", headers=asked)
        allowed = answer.headers["access-control-allow-headers"].lower()
        assert {"content-md5", "repr-digest", "if-match", "if-none-match"} <= set(allowed.split(", "))
        assert "PUT" in answer.headers["access-control-allow-methods"]
        assert "DELETE" in answer.headers["access-control-allow-methods"]
