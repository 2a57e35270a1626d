"""What every request passes: ids, hosts, CORS, sizes, problems, logs and metrics."""

import asyncio
import json
from typing import Any

import pytest

from tests.api.conftest import Service, StartService, client, s3_body
from tests.servers.s3 import S3Bucket


async def test_every_answer_has_an_id_that_is_its_own(service: Service) -> None:
    answers = [await service.admin.get("/v1/me") for _ in range(3)]
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == 3
    kept = await service.admin.get("/v1/me", headers={"X-Request-Id": "from-outside_1.2"})
    assert kept.headers["x-request-id"] == "from-outside_1.2"


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a/b"])
async def test_an_odd_id_is_replaced(service: Service, given: str) -> None:
    answer = await service.admin.get("/v1/me", headers={"X-Request-Id": given})
    assert answer.headers["x-request-id"] not in {given, ""}


async def test_a_host_that_is_not_allowed_is_refused(start_service: StartService) -> None:
    async with start_service(allowed_hosts="frames.example.org,*.cdn.example.org,127.0.0.1") as service:
        for host, status in [
            ("frames.example.org", 200),
            ("FRAMES.example.org:8443", 200),
            ("a.cdn.example.org", 200),
            ("evil.example", 400),
            ("frames.example.org.evil.example", 400),
            ("cdn.example.org", 400),
            ("", 400),
        ]:
            answer = await service.admin.get("/v1/me", headers={"Host": host})
            assert answer.status_code == status, host
            if status == 400:
                assert answer.json()["type"] == "/problems/host-not-allowed"
        alive = await service.admin.get("/livez", headers={"Host": "10.1.2.3"})
        assert alive.status_code == 200


async def test_links_come_from_the_public_url(start_service: StartService, s3_bucket: S3Bucket) -> None:
    async with start_service(public_url="https://frames.example.org/base") as service:
        made = await service.admin.post("/v1/storages", json=s3_body(s3_bucket))
        assert made.headers["location"].startswith("https://frames.example.org/base/v1/storages/")


async def test_browsers_may_read_from_allowed_origins_alone(
    start_service: StartService, s3_bucket: S3Bucket
) -> None:
    await s3_bucket.put("a.jpg", b"picture")
    async with start_service(cors_origins="https://annotate.example.org") as service:
        path = f"/v1/storages/{await service.attach(s3_body(s3_bucket))}/objects/a.jpg"
        for origin, allowed in [("https://annotate.example.org", True), ("https://evil.example", False)]:
            preflight = {"Origin": origin, "Access-Control-Request-Method": "GET"}
            async with client(service.url) as nobody:
                asked = await nobody.options(path, headers=preflight)
            read = await service.admin.get(path, headers={"Origin": origin})
            assert asked.status_code == 204
            for answer in (asked, read):
                expected = origin if allowed else None
                assert answer.headers.get("access-control-allow-origin") == expected
            assert (
                "authorization" in asked.headers.get("access-control-allow-headers", "").lower()
            ) == allowed
            if allowed:
                exposed = read.headers["access-control-expose-headers"]
                assert exposed == "ETag, Content-Range, Accept-Ranges, X-Request-Id"
            assert "Origin" in read.headers.get_list("vary")


async def test_without_the_setting_no_origin_may_read(service: Service) -> None:
    answer = await service.admin.get("/v1/me", headers={"Origin": "https://annotate.example.org"})
    assert "access-control-allow-origin" not in answer.headers


async def test_a_large_body_is_413_with_and_without_a_length(service: Service) -> None:
    whole = b"x" * (1024 * 1024 + 1)

    async def pieces() -> Any:
        for _ in range(20):
            yield b" " * 65536

    for content in (whole, pieces()):
        answer = await service.admin.post(
            "/v1/storages", content=content, headers={"Content-Type": "application/json"}
        )
        assert (answer.status_code, answer.json()["type"]) == (413, "/problems/body-too-large")


@pytest.mark.parametrize(
    ("content", "kind", "status", "slug"),
    [
        (b"{", "application/json", 400, "malformed-request"),
        (b"\xff\xfe", "application/json", 400, "malformed-request"),
        (b"[1]", "application/json", 422, "invalid-request"),
        (b"", "application/json", 422, "invalid-request"),
        (b"{}", "text/plain", 415, "unsupported-media-type"),
        (b"a=1", "application/x-www-form-urlencoded", 415, "unsupported-media-type"),
        (b'{"key": "\\ud800"}', "application/json", 422, "invalid-request"),
        (b"[" * 100_000, "application/json", 400, "malformed-request"),
        (b'{"display_name": NaN}', "application/json", 422, "invalid-request"),
    ],
)
async def test_what_is_no_json_body_is_a_problem(
    service: Service, content: bytes, kind: str, status: int, slug: str
) -> None:
    answer = await service.admin.post("/v1/storages", content=content, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")
    assert answer.headers["content-type"] == "application/problem+json"


async def test_paths_that_are_none_and_methods_that_are_none_are_problems(service: Service) -> None:
    none = await service.admin.get("/v1/nothing")
    assert (none.status_code, none.json()["type"]) == (404, "/problems/not-found")
    wrong = await service.admin.put("/v1/storages")
    assert (wrong.status_code, wrong.json()["type"]) == (405, "/problems/method-not-allowed")
    assert "GET" in wrong.headers["allow"]
    for odd in ("0", "-1", "abc", "1.5", "9" * 40, "%00"):
        answer = await service.admin.get(f"/v1/storages/{odd}")
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found"), odd
    assert (await service.admin.get("/v1/jobs/not-a-uuid")).status_code == 404


async def test_alive_and_ready_want_no_token(service: Service) -> None:
    async with client(service.url) as nobody:
        for path in ("/livez", "/readyz"):
            answer = await nobody.get(path)
            assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_metrics_count_requests_and_want_an_admin_from_elsewhere(
    service: Service, s3_bucket: S3Bucket
) -> None:
    path = f"/v1/storages/{await service.attach(s3_body(s3_bucket))}/objects/none"
    await service.admin.get(path)
    async with client(service.url) as nobody:
        text = (await nobody.get("/metrics")).text
        assert 'framegate_requests_total{method="GET",route="object",status="404"} 1.0' in text
        assert 'framegate_storage_refusals_total{error="ObjectMissingError"} 1.0' in text
        passed_on = await nobody.get("/metrics", headers={"X-Forwarded-For": "203.0.113.9"})
        assert passed_on.status_code == 401
    async with service.user("ann") as ann:
        answer = await ann.get("/metrics", headers={"X-Forwarded-For": "203.0.113.9"})
        assert answer.status_code == 403
    answer = await service.admin.get("/metrics", headers={"X-Forwarded-For": "203.0.113.9"})
    assert answer.status_code == 200


async def test_each_request_is_one_log_line_without_its_query(
    start_service: StartService, capsys: pytest.CaptureFixture[str]
) -> None:
    async with start_service() as service:
        params = {"signature": "planted-secret"}
        await service.admin.get("/v1/me", params=params, headers={"X-Request-Id": "seen"})
        await asyncio.sleep(0.25)
    written = capsys.readouterr().err
    lines = [json.loads(line) for line in written.splitlines() if '"seen"' in line]
    assert [(line["event"], line["path"], line["status"]) for line in lines] == [("request", "/v1/me", 200)]
    assert lines[0]["method"] == "GET"
    assert "planted-secret" not in written
