"""Who may come in: tokens, users, and signed URLs."""

import asyncio
import time
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import pytest

from tests.api.conftest import Service, StartService, client, s3_body
from tests.servers.s3 import S3Bucket

CLOSED = [
    ("GET", "/v1/me"),
    ("GET", "/v1/tokens"),
    ("POST", "/v1/tokens"),
    ("DELETE", "/v1/tokens/1"),
    ("POST", "/v1/signed-urls"),
    ("GET", "/v1/providers"),
    ("GET", "/v1/storages"),
    ("POST", "/v1/storages"),
    ("POST", "/v1/storages/probe"),
    ("GET", "/v1/storages/1"),
    ("PATCH", "/v1/storages/1"),
    ("DELETE", "/v1/storages/1"),
    ("GET", "/v1/storages/1/health"),
    ("GET", "/v1/storages/1/objects"),
    ("GET", "/v1/storages/1/objects/a"),
    ("HEAD", "/v1/storages/1/objects/a"),
    ("PUT", "/v1/storages/1/objects/a"),
    ("DELETE", "/v1/storages/1/objects/a"),
    ("GET", "/v1/storages/1/preview"),
    ("HEAD", "/v1/storages/1/preview"),
    ("GET", "/v1/storages/1/manifests"),
    ("POST", "/v1/storages/1/manifests"),
    ("GET", "/v1/manifests/1"),
    ("DELETE", "/v1/manifests/1"),
    ("POST", "/v1/manifests/1/sync"),
    ("GET", "/v1/manifests/1/problems"),
    ("GET", "/v1/manifests/1/frames"),
    ("GET", "/v1/manifests/1/frames/0"),
    ("GET", "/v1/manifests/1/frames/0/image"),
    ("HEAD", "/v1/manifests/1/frames/0/image"),
    ("GET", "/v1/manifests/1/chunks/0"),
    ("HEAD", "/v1/manifests/1/chunks/0"),
    ("GET", "/v1/jobs"),
    ("GET", "/v1/jobs/00000000-0000-0000-0000-000000000000"),
    ("DELETE", "/v1/jobs/00000000-0000-0000-0000-000000000000"),
]


async def test_every_operation_but_the_open_ones_wants_a_token(service: Service) -> None:
    async with client(service.url) as nobody:
        document = (await nobody.get("/openapi.json")).json()
        described = {
            (method.upper(), path)
            for path, operations in document["paths"].items()
            for method in operations
            if not path.startswith(("/livez", "/readyz", "/metrics"))
        }
        assert len(described) == len(CLOSED)
        for method, path in CLOSED:
            answer = await nobody.request(method, path)
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer fg_unknown-token-of-nobody-at-all",
        "Basic Zm9vOmJhcg==",
        "fg_x",
        "Bearer x y",
    ],
)
async def test_what_is_no_token_is_401(service: Service, header: str) -> None:
    async with client(service.url) as nobody:
        answer = await nobody.get("/v1/me", headers={"Authorization": header})
        assert (answer.status_code, answer.json()["type"]) == (401, "/problems/unauthenticated")


async def test_tells_who_the_caller_is(service: Service) -> None:
    async with service.user("ann@example.org") as ann:
        me = (await ann.get("/v1/me")).json()
    assert (me["name"], me["role"]) == ("ann@example.org", "user")
    assert isinstance(me["id"], int)


async def test_a_user_makes_lists_and_revokes_tokens(service: Service) -> None:
    async with service.user("ann") as ann, service.user("ben") as ben:
        made = await ann.post("/v1/tokens", json={"name": "laptop", "expires": "30d"})
        assert made.status_code == 201, made.text
        token = made.json()["token"]
        assert token.startswith("fg_")
        assert len(token) <= 40
        assert made.headers["cache-control"] == "no-store"
        listed = (await ann.get("/v1/tokens")).json()["items"]
        assert [item["name"] for item in listed] == ["", "laptop"]
        assert token not in str(listed)
        async with client(service.url, token) as second:
            assert (await second.get("/v1/me")).json()["name"] == "ann"
            path = f"/v1/tokens/{made.json()['id']}"
            assert (await ben.delete(path)).status_code == 404
            assert (await ann.delete(path)).status_code == 204
            await asyncio.sleep(0.3)
            assert (await second.get("/v1/me")).status_code == 401
            assert (await ann.delete(path)).status_code == 404


async def test_an_expired_token_is_401(service: Service) -> None:
    made = (await service.admin.post("/v1/tokens", json={"expires": "1s"})).json()
    async with client(service.url, made["token"]) as short:
        assert (await short.get("/v1/me")).status_code == 200
        await asyncio.sleep(1.1)
        answer = await short.get("/v1/me")
        assert answer.status_code == 401
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]


async def test_a_revoked_token_dies_in_every_process(start_service: StartService) -> None:
    async with start_service() as one, start_service() as other:
        made = (await one.admin.post("/v1/tokens", json={})).json()
        async with client(one.url, made["token"]) as here, client(other.url, made["token"]) as there:
            assert (await here.get("/v1/me")).status_code == (await there.get("/v1/me")).status_code == 200
            await one.admin.delete(f"/v1/tokens/{made['id']}")
            await asyncio.sleep(0.5)
            assert (await here.get("/v1/me")).status_code == (await there.get("/v1/me")).status_code == 401


@pytest.mark.parametrize(
    "body", [{"expires": "0d"}, {"expires": "soon"}, {"expires": "99999d"}, {"role": "admin"}]
)
async def test_odd_token_bodies_are_422(service: Service, body: dict[str, Any]) -> None:
    answer = await service.admin.post("/v1/tokens", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == f"/{next(iter(body))}"


async def test_tokens_are_kept_as_hashes(service: Service, database_url: str) -> None:
    import asyncpg

    made = (await service.admin.post("/v1/tokens", json={"name": "x"})).json()
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch("SELECT t::text FROM tokens t")
    await connection.close()
    assert made["token"] not in str(rows)


async def signed(service: Service, bucket: S3Bucket, **more: Any) -> str:
    """A signed URL of an object in a fresh storage."""
    storage = await service.attach(s3_body(bucket))
    answer = await service.admin.post("/v1/signed-urls", json={"storage_id": storage} | more)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["url"])


async def test_a_signed_url_reads_one_object_without_a_token(both_ways: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("pets/é a+b.jpg", b"picture", "image/jpeg")
    url = await signed(both_ways, s3_bucket, key="pets/é a+b.jpg", expires_in_s=60)
    assert url.startswith(both_ways.url)
    async with client(both_ways.url) as nobody:
        answer = await nobody.get(url)
        assert (answer.status_code, answer.content) == (200, b"picture")
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        assert (await nobody.head(url)).status_code == 200
        part = await nobody.get(url, headers={"Range": "bytes=0-2"})
        assert (part.status_code, part.content) == (206, b"pic")
        for method, status in (("POST", 405), ("PUT", 401), ("DELETE", 401)):
            assert (await nobody.request(method, url)).status_code == status


async def test_a_bent_or_expired_signed_url_is_403(both_ways: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("a.jpg", b"picture")
    await s3_bucket.put("b.jpg", b"other")
    url = await signed(both_ways, s3_bucket, key="a.jpg", expires_in_s=2)
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}

    def bent(path: str = parts.path, **changes: str) -> str:
        return urlunsplit((parts.scheme, parts.netloc, path, urlencode(query | changes), ""))

    async with client(both_ways.url) as nobody:
        assert (await nobody.get(url)).status_code == 200
        for wrong in (
            bent(parts.path.replace("a.jpg", "b.jpg")),
            bent(expires=str(int(query["expires"]) + 1000)),
            bent(token_id="999"),
            bent(signature="0" * 64),
            bent(signature="é"),
            bent(expires="abc"),
            bent(download="true"),
            url + "&signature=" + query["signature"],
            url.replace("expires=", "expire="),
        ):
            answer = await nobody.get(wrong)
            assert (answer.status_code, answer.json()["type"]) == (403, "/problems/signed-url-invalid"), wrong
        await asyncio.sleep(max(0.0, int(query["expires"]) - time.time()) + 0.05)
        assert (await nobody.get(url)).status_code == 403


async def test_a_signed_url_dies_with_its_makers_token(both_ways: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("a.jpg", b"picture")
    storage = await both_ways.attach(s3_body(s3_bucket))
    made = (await both_ways.admin.post("/v1/tokens", json={})).json()
    async with client(both_ways.url, made["token"]) as second, client(both_ways.url) as nobody:
        body = {"storage_id": storage, "key": "a.jpg"}
        url = (await second.post("/v1/signed-urls", json=body)).json()["url"]
        assert (await nobody.get(url)).status_code == 200
        await both_ways.admin.delete(f"/v1/tokens/{made['id']}")
        await asyncio.sleep(0.3)
        assert (await nobody.get(url)).status_code == 403


async def test_only_what_one_may_see_can_be_signed(service: Service, s3_bucket: S3Bucket) -> None:
    storage = await service.attach(s3_body(s3_bucket))
    async with service.user("ben") as ben:
        answer = await ben.post("/v1/signed-urls", json={"storage_id": storage, "key": "a.jpg"})
        assert answer.status_code == 404
    for body in (
        {},
        {"storage_id": storage},
        {"storage_id": storage, "key": "a", "number": 1},
        {"storage_id": storage, "key": "a", "expires_in_s": 0},
        {"storage_id": storage, "key": "a", "expires_in_s": 604_801},
        {"storage_id": storage, "key": "../a"},
        {"storage_id": "1", "key": "a"},
    ):
        assert (await service.admin.post("/v1/signed-urls", json=body)).status_code == 422, body
