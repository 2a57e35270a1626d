"""Storages that redirect: everything up to the answer is as by proxy, then the bucket sends the bytes itself."""

import asyncio
import base64
import json
import logging
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest

from app.lifespan import open_services
from app.metrics import Metrics
from app.storage.base import PLAIN_READ, ObjectRead
from tests.api.conftest import Service, StartService, azure_source, client, s3_body, s3_source
from tests.api.test_hot_objects import ON, reads
from tests.servers.azurite import AzureContainer, AzureServer
from tests.servers.s3 import S3Bucket, S3Server

BODY = bytes(range(256)) * 40
REDIRECT = {"delivery": "redirect"}
ODD_KEYS = (
    "with space.jpg",
    "100%.jpg",
    "a+b.jpg",
    "q?x=1.jpg",
    "h#h.jpg",
    "日本/é.jpg",
    "🐈.jpg",
    "a%2Fb.jpg",
    "a&b=c;d.jpg",
)
MANIFEST = b"""{"version":"1.1"}
{"type":"images"}
{"name":"pets/beagle","extension":".jpg","width":40,"height":30}
"""


async def redirecting(service: Service, bucket: S3Bucket) -> str:
    """Attach a bucket that redirects and give the path of its objects."""
    return f"/v1/storages/{await service.attach(s3_body(bucket), **REDIRECT)}/objects"


async def follow(answer: httpx.Response, method: str = "GET", **headers: str) -> httpx.Response:
    """Go where a 307 leads, as somebody who has nothing but its Location."""
    assert answer.status_code == 307, answer.text
    async with httpx.AsyncClient(trust_env=False, timeout=30) as nobody:
        return await nobody.request(method, answer.headers["location"], headers=headers)


def in_azure(container: AzureContainer, auth: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A body that attaches a container."""
    return {"display_name": "Azure", "source": azure_source(container, auth)} | more


async def test_answers_307_with_safe_headers_and_no_body(both_ways: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("a.jpg", BODY, "image/jpeg")
    answer = await both_ways.admin.get(f"{await redirecting(both_ways, s3_bucket)}/a.jpg")
    assert (answer.status_code, answer.content) == (307, b"")
    assert {name: answer.headers.get(name) for name in SAFE} == SAFE
    assert (await follow(answer)).content == BODY


SAFE = {
    "content-length": "0",
    "cache-control": "private, no-store",
    "vary": "Authorization, Cookie",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox",
    "cross-origin-resource-policy": "same-origin",
    "content-type": None,
    "etag": None,
    "accept-ranges": None,
}


async def test_head_is_redirected_to_a_url_for_head(both_ways: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("a.jpg", BODY)
    path = f"{await redirecting(both_ways, s3_bucket)}/a.jpg"
    head = await both_ways.admin.head(path)
    assert (head.status_code, head.headers["content-length"]) == (307, "0")
    assert (await follow(head, "HEAD")).headers["content-length"] == str(len(BODY))
    assert (await follow(head, "GET")).status_code == 403


async def test_a_client_that_follows_keeps_its_token_from_the_bucket(
    both_ways: Service, s3_bucket: S3Bucket
) -> None:
    await s3_bucket.put("a.jpg", BODY)
    path = f"{await redirecting(both_ways, s3_bucket)}/a.jpg"
    asked: list[httpx.Request] = []

    async def note(request: httpx.Request) -> None:
        asked.append(request)

    async with client(both_ways.url) as one:
        one.headers["Authorization"] = both_ways.admin.headers["Authorization"]
        one.event_hooks = {"request": [note]}
        answer = await one.get(path, headers={"Range": "bytes=5-9"}, follow_redirects=True)
    assert (answer.status_code, answer.content) == (206, BODY[5:10])
    assert ["authorization" in request.headers for request in asked] == [True, False]
    assert asked[1].headers["range"] == "bytes=5-9"


async def test_conditions_and_missing_objects_are_the_buckets_to_answer(
    both_ways: Service, s3_bucket: S3Bucket
) -> None:
    etag = await s3_bucket.put("a.jpg", BODY)
    path = await redirecting(both_ways, s3_bucket)
    for headers, status in (
        ({"If-None-Match": etag}, 304),
        ({"If-Match": '"other"'}, 412),
        ({"Range": "bytes=99999-"}, 416),
    ):
        answer = await both_ways.admin.get(f"{path}/a.jpg", headers=headers)
        assert (await follow(answer, **headers)).status_code == status
    assert (await follow(await both_ways.admin.get(f"{path}/none.jpg"))).status_code == 404


async def test_odd_keys_arrive(both_ways: Service, s3_bucket: S3Bucket) -> None:
    path = await redirecting(both_ways, s3_bucket)
    for key in ODD_KEYS:
        await s3_bucket.put(key, key.encode())
        answer = await both_ways.admin.get(f"{path}/{quote(key)}")
        assert (await follow(answer)).content == key.encode(), key


async def test_an_azure_container_redirects_too(both_ways: Service, azure_container: AzureContainer) -> None:
    path = f"/v1/storages/{await both_ways.attach(in_azure(azure_container), **REDIRECT)}/objects"
    for key in (*ODD_KEYS, "a//b.jpg"):
        await azure_container.put(key, key.encode())
        answer = await both_ways.admin.get(f"{path}/{quote(key)}")
        assert (await follow(answer)).content == key.encode(), key
        assert (await follow(answer, Range="bytes=0-2")).content == key.encode()[:3]
    grants = parse_qs(urlsplit(answer.headers["location"]).query)
    assert (grants["sr"], grants["sp"]) == (["b"], ["r"])
    head = await both_ways.admin.head(f"{path}/a%2Bb.jpg")
    assert (await follow(head, "HEAD")).status_code == 200


async def test_public_buckets_redirect_to_plain_urls(both_ways: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.publish()
    await s3_bucket.put("a b.jpg", BODY)
    source = s3_source(s3_bucket, auth={"type": "anonymous"})
    path = f"/v1/storages/{await both_ways.attach(s3_body(s3_bucket, source=source), **REDIRECT)}/objects"
    answer = await both_ways.admin.get(f"{path}/a%20b.jpg?download=true")
    expected = f"{s3_bucket.server.endpoint_url}/{s3_bucket.name}/a%20b.jpg"
    assert answer.headers["location"] == expected
    assert (await follow(answer)).content == BODY


async def test_the_bucket_is_asked_to_serve_safely(both_ways: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("a.jpg", b"<script>alert(1)</script>", "text/html")
    await s3_bucket.put("ä.html", b"<script>alert(1)</script>", "text/html")
    path = await redirecting(both_ways, s3_bucket)
    shown = await follow(await both_ways.admin.get(f"{path}/a.jpg"))
    assert shown.headers["content-type"] == "image/jpeg"
    assert "content-disposition" not in shown.headers
    saved = await follow(await both_ways.admin.get(f"{path}/a.jpg?download=true"))
    assert saved.headers["content-disposition"] == "attachment; filename=\"a.jpg\"; filename*=UTF-8''a.jpg"
    active = await follow(await both_ways.admin.get(f"{path}/{quote('ä.html')}"))
    assert active.headers["content-type"] == "application/octet-stream"
    assert active.headers["content-disposition"].startswith("attachment;")
    assert active.headers["cache-control"] == "private, no-cache"
    odd = await both_ways.admin.get(f"{path}/a.jpg?download=perhaps")
    assert (odd.status_code, odd.json()["errors"][0]["pointer"]) == (422, "query:download")


@pytest.mark.parametrize(
    ("raw", "slug"),
    [
        ("%ff.jpg", "malformed-request"),
        ("a%2F..%2Fb.jpg", "invalid-key"),
        ("a%2F.%2Fb.jpg", "invalid-key"),
        ("a%0D%0AX-Evil:1.jpg", "invalid-key"),
        ("x" * 1025, "invalid-key"),
    ],
)
async def test_a_hostile_key_gets_no_url(
    both_ways: Service, s3_bucket: S3Bucket, raw: str, slug: str
) -> None:
    answer = await both_ways.admin.get(f"{await redirecting(both_ways, s3_bucket)}/{raw}")
    assert (answer.status_code, answer.json()["type"]) == (400, f"/problems/{slug}")
    assert "location" not in answer.headers


async def test_a_frames_picture_is_redirected(both_ways: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("manifest.jsonl", MANIFEST)
    await s3_bucket.put("pets/beagle.jpg", BODY)
    storage = await both_ways.attach(s3_body(s3_bucket), **REDIRECT)
    manifest = await both_ways.register(storage, "manifest.jsonl")
    path = f"/v1/manifests/{manifest['id']}/frames"
    assert (await follow(await both_ways.admin.get(f"{path}/0/image"))).content == BODY
    head = await both_ways.admin.head(f"{path}/0/image")
    assert (await follow(head, "HEAD")).headers["content-length"] == str(len(BODY))
    assert (await both_ways.admin.get(f"{path}/7/image")).status_code == 404
    assert (await both_ways.admin.get(f"{path}/0/image?revision=9")).status_code == 410


async def test_who_may_not_read_gets_no_url(both_ways: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("a.jpg", BODY)
    path = f"{await redirecting(both_ways, s3_bucket)}/a.jpg"
    made = (await both_ways.admin.post("/v1/tokens", json={})).json()
    async with (
        client(both_ways.url) as nobody,
        client(both_ways.url, made["token"]) as short,
        both_ways.user("ben") as ben,
    ):
        assert (await short.get(path)).status_code == 307
        await both_ways.admin.delete(f"/v1/tokens/{made['id']}")
        refused = {
            401: [await nobody.get(path), await short.get(path)],
            404: [await ben.get(path), await both_ways.admin.get("/v1/storages/999999/objects/a.jpg")],
        }
    for status, answers in refused.items():
        for answer in answers:
            assert (answer.status_code, "location" in answer.headers) == (status, False)


async def test_a_signed_url_is_redirected_until_its_token_is_revoked(
    both_ways: Service, s3_bucket: S3Bucket
) -> None:
    await s3_bucket.put("a.jpg", BODY)
    storage = await both_ways.attach(s3_body(s3_bucket), **REDIRECT)
    made = (await both_ways.admin.post("/v1/tokens", json={})).json()
    async with client(both_ways.url) as nobody, client(both_ways.url, made["token"]) as short:
        body = {"storage_id": storage, "key": "a.jpg"}
        url = (await short.post("/v1/signed-urls", json=body)).json()["url"]
        answer = await nobody.get(url)
        assert (await follow(answer)).content == BODY
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        given = urlsplit(answer.headers["location"]).query
        assert "token_id" not in given
        assert (await follow(await nobody.head(url), "HEAD")).status_code == 200
        bent = await nobody.get(url.replace("a.jpg", "b.jpg"))
        assert (bent.status_code, "location" in bent.headers) == (403, False)
        await both_ways.admin.delete(f"/v1/tokens/{made['id']}")
        gone = await nobody.get(url)
        assert (gone.status_code, "location" in gone.headers) == (403, False)


async def test_cors_headers_stand_on_the_redirection(
    start_service: StartService, s3_bucket: S3Bucket
) -> None:
    async with start_service(cors_origins="https://tool.example") as service:
        path = f"{await redirecting(service, s3_bucket)}/a.jpg"
        answer = await service.admin.get(path, headers={"Origin": "https://tool.example"})
        assert answer.status_code == 307
        assert answer.headers["access-control-allow-origin"] == "https://tool.example"
        assert answer.headers.get_list("vary") == ["Authorization, Cookie", "Origin"]


# --- which storages may ---------------------------------------------------------------------------


def sas(container: AzureContainer) -> dict[str, Any]:
    """A SAS token as a credential."""
    return {"type": "sas_token", "sas_token": container.server.container_sas(container.name)}


def sas_string(container: AzureContainer) -> dict[str, Any]:
    """A connection string that holds a SAS and no key."""
    server = container.server
    text = f"BlobEndpoint={server.endpoint_url};SharedAccessSignature={server.container_sas(container.name)}"
    return {"type": "connection_string", "connection_string": text}


def key_string(server: AzureServer) -> dict[str, Any]:
    """A connection string that holds the account's key."""
    return {"type": "connection_string", "connection_string": server.connection_string}


def assert_refused(answer: httpx.Response) -> None:
    """Check that redirects are refused at their field, with what to do, and without the token."""
    assert answer.status_code == 422, answer.text
    fault = next(error for error in answer.json()["errors"] if error["pointer"] == "/delivery")
    assert "SAS" in fault["detail"]
    assert "account_key" in fault["detail"]
    assert "sig=" not in answer.text


async def test_a_sas_token_may_not_redirect(service: Service, azure_container: AzureContainer) -> None:
    for auth in (sas(azure_container), sas_string(azure_container)):
        body = in_azure(azure_container, auth, **REDIRECT)
        assert_refused(await service.admin.post("/v1/storages", json=body))
        probed = await service.admin.post("/v1/storages/probe", json=body)
        assert_refused(probed)
        checks = {check["name"]: check for check in probed.json()["checks"]}
        assert checks["list"]["ok"]
        assert not checks["redirect"]["ok"]
        assert "account_key" in checks["redirect"]["remedy"]
    assert (await service.admin.get("/v1/storages")).json()["items"] == []


async def test_a_patch_may_not_lead_there_by_either_half(
    service: Service, azure_container: AzureContainer
) -> None:
    for auth in (sas(azure_container), sas_string(azure_container)):
        source = azure_source(azure_container, auth)
        held = f"/v1/storages/{await service.attach(in_azure(azure_container, auth))}"
        assert_refused(await service.admin.patch(held, json=REDIRECT))
        assert (await service.admin.get(held)).json()["delivery"] == "proxy"
        keyed = f"/v1/storages/{await service.attach(in_azure(azure_container), **REDIRECT)}"
        assert_refused(await service.admin.patch(keyed, json={"source": source}))
        assert_refused(await service.admin.patch(keyed, json={"source": {"auth": auth}}))
        both = {"source": {"auth": auth}, "delivery": "proxy"}
        assert (await service.admin.patch(keyed, json=both)).status_code == 200
        assert (await service.admin.get(keyed)).json()["delivery"] == "proxy"


async def test_a_connection_string_with_a_key_may(service: Service, azure_container: AzureContainer) -> None:
    await azure_container.put("a.jpg", BODY)
    auth = key_string(azure_container.server)
    path = f"/v1/storages/{await service.attach(in_azure(azure_container, auth), **REDIRECT)}"
    assert (await follow(await service.admin.get(f"{path}/objects/a.jpg"))).content == BODY


async def test_a_patch_needs_no_secret_and_makes_a_new_version(service: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("a.jpg", BODY)
    path = f"/v1/storages/{await service.attach(s3_body(s3_bucket))}"
    before = await service.admin.get(path)
    changed = await service.admin.patch(path, json=REDIRECT, headers={"If-Match": before.headers["etag"]})
    assert (changed.status_code, changed.json()["delivery"]) == (200, "redirect")
    assert changed.headers["etag"] != before.headers["etag"]
    assert (await service.admin.get(f"{path}/objects/a.jpg")).status_code == 307
    stale = await service.admin.patch(path, json=REDIRECT, headers={"If-Match": before.headers["etag"]})
    assert stale.status_code == 412
    back = await service.admin.patch(path, json={"delivery": None})
    assert (back.status_code, back.json()["delivery"]) == (200, "proxy")
    assert (await service.admin.get(f"{path}/objects/a.jpg")).content == BODY


async def test_a_change_of_delivery_is_heard_by_every_process(
    start_service: StartService, s3_bucket: S3Bucket
) -> None:
    await s3_bucket.put("a.jpg", BODY)
    same = ON | {"secret_keys": f"k1:{base64.b64encode(bytes(32)).decode()}"}
    async with start_service(**same) as one, start_service(**same) as other:
        path = f"/v1/storages/{await one.attach(s3_body(s3_bucket))}"
        assert (await other.admin.get(f"{path}/objects/a.jpg")).content == BODY
        for delivery, status in (("redirect", 307), ("proxy", 200)):
            await one.admin.patch(path, json={"delivery": delivery})
            assert (await heard(other, f"{path}/objects/a.jpg", status)).status_code == status


async def heard(service: Service, path: str, status: int) -> httpx.Response:
    """Ask until an answer has a status; the database's notice comes within moments."""
    async with asyncio.timeout(10):
        while (answer := await service.admin.get(path)).status_code != status:
            await asyncio.sleep(0.02)
    return answer


async def test_memory_is_neither_read_nor_filled(start_service: StartService, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("a.jpg", BODY)
    async with start_service(**ON) as service:
        path = f"{await redirecting(service, s3_bucket)}/a.jpg"
        for _ in range(3):
            assert (await service.admin.get(path)).status_code == 307
        assert [await reads(service, outcome) for outcome in ("miss", "hit", "passed")] == [0, 0, 0]


async def test_bytes_that_framegate_needs_itself_come_by_proxy(service: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("a.jpg", BODY)
    storage = await service.attach(s3_body(s3_bucket), **REDIRECT)
    async with open_services(service.settings, Metrics()) as services:
        token = service.admin.headers["authorization"].removeprefix("Bearer ")
        principal = await services.access.authenticate(token)
        read = await services.objects.read(principal, storage, "a.jpg", "GET", PLAIN_READ)
    assert isinstance(read, ObjectRead)
    assert read.body == BODY


# --- what operators see ---------------------------------------------------------------------------


async def test_probe_and_health_follow_a_url(
    service: Service, s3_bucket: S3Bucket, azure_container: AzureContainer
) -> None:
    for body, put in (
        (s3_body(s3_bucket, **REDIRECT), s3_bucket.put),
        (in_azure(azure_container, **REDIRECT), azure_container.put),
    ):
        empty = (await service.admin.post("/v1/storages/probe", json=body)).json()
        assert pick(empty, "redirect") == {"name": "redirect", "ok": True}
        await put("a.jpg", BODY)
        probed = (await service.admin.post("/v1/storages/probe", json=body)).json()
        assert pick(probed, "redirect") == {"name": "redirect", "ok": True}
        storage = f"/v1/storages/{await service.attach(body)}"
        health = (await service.admin.get(f"{storage}/health")).json()
        assert pick(health, "redirect") == {"name": "redirect", "ok": True}
        await service.admin.patch(storage, json={"delivery": "proxy"})
        assert pick((await service.admin.get(f"{storage}/health")).json(), "redirect") is None


def pick(report: dict[str, Any], name: str) -> dict[str, Any] | None:
    """One check of a checklist, without its texts."""
    found = next((check for check in report["checks"] if check["name"] == name), None)
    return found and {"name": found["name"], "ok": found["ok"]}


async def test_providers_say_which_ways_in_may_redirect(service: Service) -> None:
    items = (await service.admin.get("/v1/providers")).json()["items"]
    allowed = {
        (item["name"], auth["type"]): auth["redirect"] for item in items for auth in item["auth_types"]
    }
    assert allowed == {
        ("s3", "key_pair"): True,
        ("s3", "anonymous"): True,
        ("azure", "sas_token"): False,
        ("azure", "account_key"): True,
        ("azure", "connection_string"): True,
        ("azure", "anonymous"): True,
    }


async def test_the_documents_tell_of_307(service: Service) -> None:
    paths = (await service.admin.get("/openapi.json")).json()["paths"]
    for path in (
        "/v1/storages/{storage_id}/objects/{key}",
        "/v1/manifests/{manifest_id}/frames/{number}/image",
    ):
        for method in ("get", "head"):
            assert "Location" in paths[path][method]["responses"]["307"]["headers"]


@pytest.mark.parametrize("lane", [True, False])
async def test_a_location_is_counted_and_never_logged(
    start_service: StartService,
    s3_bucket: S3Bucket,
    azure_container: AzureContainer,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    lane: bool,
) -> None:
    caplog.set_level("DEBUG")
    # The test's own client would write down what it is answered.
    caplog.set_level(logging.WARNING, "httpcore")
    await s3_bucket.put("a.jpg", BODY)
    async with start_service(lane=lane, log_level="debug") as service:
        locations = []
        for body in (s3_body(s3_bucket), in_azure(azure_container)):
            path = f"/v1/storages/{await service.attach(body, **REDIRECT)}"
            for method, key in (("GET", "a.jpg"), ("HEAD", "a.jpg"), ("GET", "none")):
                answer = await service.admin.request(method, f"{path}/objects/{key}")
                locations.append(answer.headers["location"])
            await service.admin.get(f"{path}/health")
        metrics = (await service.admin.get("/metrics")).text
        await asyncio.sleep(0.2)
    out, err = capfd.readouterr()
    lines = [json.loads(line) for line in err.splitlines() if line.startswith('{"event":"request"')]
    assert sum(line["status"] == 307 for line in lines) == 6
    assert 'framegate_requests_total{method="GET",route="' in metrics
    assert any('status="307"' in line for line in metrics.splitlines())
    for place, text in {"out": out, "err": err, "log": caplog.text, "metrics": metrics}.items():
        lowered = text.lower()
        for trace in ("x-amz-", "sig=", "location", *(urlsplit(url).query.lower() for url in locations)):
            assert trace not in lowered, (place, trace)


async def test_another_server_that_speaks_s3_redirects(service: Service, juicefs_s3: S3Server) -> None:
    async with juicefs_s3.bucket() as bucket:
        await bucket.put("pets/é b.jpg", BODY)
        answer = await service.admin.get(f"{await redirecting(service, bucket)}/{quote('pets/é b.jpg')}")
        assert (await follow(answer)).content == BODY
