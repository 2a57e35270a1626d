"""What a bucket refuses on attach: one fault at the field, in words that say what to do, and nothing stored."""

import socket
from typing import Any

import pytest

from tests.api.conftest import Service, azure_source, s3_body, s3_source
from tests.servers.azurite import AzureContainer
from tests.servers.s3 import S3Bucket


def unused_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


async def refusal(service: Service, source: dict[str, Any], **more: Any) -> tuple[str, str]:
    """Attach, and give where and why that was refused."""
    body = {"display_name": "Refused", "source": source} | more
    answer = await service.admin.post("/v1/storages", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await service.admin.get("/v1/storages")).json()["items"] == []
    errors = answer.json()["errors"]
    assert len(errors) == 1, errors
    return errors[0]["pointer"], errors[0]["detail"]


def s3_auth(bucket: S3Bucket, **more: Any) -> dict[str, Any]:
    return {"auth": s3_source(bucket)["auth"] | more}


@pytest.mark.parametrize(
    ("change", "pointer", "word"),
    [
        ({"access_key_id": "AKIANOBODY"}, "/source/auth/access_key_id", "key"),
        ({"secret_access_key": "wrong-secret"}, "/source/auth/secret_access_key", "secret"),
    ],
)
async def test_a_wrong_s3_key_is_named(
    service: Service, s3_bucket: S3Bucket, change: dict[str, Any], pointer: str, word: str
) -> None:
    where, why = await refusal(service, s3_source(s3_bucket, **s3_auth(s3_bucket, **change)))
    assert where == pointer
    assert word in why.lower()


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"bucket": "no-such-bucket-here"}, "/source/bucket"),
        ({"bucket": "arn:aws:s3:::pets"}, "/source/bucket"),
        ({"bucket": "Pets"}, "/source/bucket"),
        ({"bucket": "127.0.0.1"}, "/source/bucket"),
        ({"bucket": "a/b"}, "/source/bucket"),
        ({"region": "EU Central"}, "/source/region"),
        ({"region": "eu-west-1@evil.example"}, "/source/region"),
        ({"endpoint_url": "ftp://127.0.0.1"}, "/source/endpoint_url"),
        ({"endpoint_url": "http://user:pass@127.0.0.1"}, "/source/endpoint_url"),
        ({"endpoint_url": "http://127.0.0.1:1/?x=1"}, "/source/endpoint_url"),
        ({"endpoint_url": "https://no-such-host.invalid"}, "/source/endpoint_url"),
        ({"endpoint_url": "http://10.255.255.1:9000"}, "/source/endpoint_url"),
        ({"endpoint_url": "http://169.254.169.254"}, "/source/endpoint_url"),
        ({"endpoint_url": "http://[::1]:9000"}, "/source/endpoint_url"),
        ({"prefix": "a/../b"}, "/source/prefix"),
        ({"auth": {"type": "anonymous"}}, "/source/auth"),
    ],
)
async def test_a_wrong_s3_place_is_named(
    service: Service, s3_bucket: S3Bucket, change: dict[str, Any], pointer: str
) -> None:
    where, _ = await refusal(service, s3_source(s3_bucket, **change))
    assert where.startswith(pointer)


async def test_a_private_address_names_the_setting_that_would_allow_it(
    service: Service, s3_bucket: S3Bucket
) -> None:
    _, why = await refusal(service, s3_source(s3_bucket, endpoint_url="http://10.1.2.3:9000"))
    assert "FRAMEGATE_ALLOWED_PRIVATE_ENDPOINTS" in why


async def test_an_endpoint_that_is_no_s3_or_not_there_is_named(service: Service, s3_bucket: S3Bucket) -> None:
    for url in (service.url, f"http://127.0.0.1:{unused_port()}"):
        where, _ = await refusal(service, s3_source(s3_bucket, endpoint_url=url))
        assert where == "/source/endpoint_url", url


async def test_tls_to_a_plain_server_is_named(service: Service, s3_bucket: S3Bucket) -> None:
    url = s3_bucket.server.endpoint_url.replace("http:", "https:")
    where, why = await refusal(service, s3_source(s3_bucket, endpoint_url=url))
    assert where == "/source/endpoint_url"
    assert "TLS" in why


async def test_a_key_that_may_not_list_is_refused_kindly(service: Service, s3_bucket: S3Bucket) -> None:
    keys = s3_bucket.server.unlisting
    auth = s3_auth(s3_bucket, access_key_id=keys.access_key_id, secret_access_key=keys.secret_access_key)
    where, why = await refusal(service, s3_source(s3_bucket, **auth))
    assert where.startswith("/source/auth")
    assert "list" in why.lower()


async def test_a_manifest_that_is_not_there_is_named_by_its_place(
    service: Service, s3_bucket: S3Bucket
) -> None:
    await s3_bucket.put("a.jsonl", b"x")
    where, _ = await refusal(service, s3_source(s3_bucket), manifests=["a.jsonl", "b.jsonl"])
    assert where == "/manifests/1"


async def test_wrong_azure_credentials_are_named(service: Service, azure_container: AzureContainer) -> None:
    server = azure_container.server
    other = "b3RoZXIga2V5IG90aGVyIGtleSBvdGhlciBrZXkgb3RoZXIga2V5IQ=="
    good = server.container_sas(azure_container.name)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"type": "account_key", "account_key": other}, "/source/auth"),
        ({"type": "account_key", "account_key": "no base64 !"}, "/source/auth/account_key"),
        ({"type": "sas_token", "sas_token": server.account_key}, "/source/auth/sas_token"),
        ({"type": "sas_token", "sas_token": f"{server.endpoint_url}/x?{good}"}, "/source/auth/sas_token"),
        (
            {"type": "sas_token", "sas_token": server.container_sas(azure_container.name, expires_in_s=-60)},
            "/source/auth/sas_token",
        ),
        ({"type": "sas_token", "sas_token": good[:-8] + "AAAAAA%3D"}, "/source/auth"),
        (
            {"type": "sas_token", "sas_token": server.container_sas(azure_container.name, "r")},
            "/source/auth/sas_token",
        ),
        ({"type": "connection_string", "connection_string": "nonsense"}, "/source/auth/connection_string"),
        ({"type": "anonymous"}, "/source"),
    ]
    for auth, pointer in cases:
        where, why = await refusal(service, azure_source(azure_container, auth))
        assert where.startswith(pointer), auth
        assert server.account_key not in why


async def test_an_account_key_pasted_as_sas_is_told_so(
    service: Service, azure_container: AzureContainer
) -> None:
    auth = {"type": "sas_token", "sas_token": azure_container.server.account_key}
    _, why = await refusal(service, azure_source(azure_container, auth))
    assert "account_key" in why


async def test_a_connection_string_obeys_the_guard(service: Service, azure_container: AzureContainer) -> None:
    text = azure_container.server.connection_string.replace("127.0.0.1", "10.0.0.1")
    auth = {"type": "connection_string", "connection_string": text}
    source = {"provider": "azure", "container": azure_container.name, "auth": auth}
    _, why = await refusal(service, source)
    assert "FRAMEGATE_ALLOWED_PRIVATE_ENDPOINTS" in why


async def test_a_missing_azure_container_is_named(service: Service, azure_container: AzureContainer) -> None:
    source = azure_source(azure_container) | {"container": "no-such-container"}
    where, _ = await refusal(service, source)
    assert where == "/source/container"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/display_name"),
        ({"display_name": "x" * 64}, "/display_name"),
        ({"display_name": "a\x00b"}, "/display_name"),
        ({"display_name": 7}, "/display_name"),
        ({"surprise": 1}, "/surprise"),
        ({"organization": "acme"}, "/organization"),
        ({"delivery": "pigeon"}, "/delivery"),
        ({"manifests": "a"}, "/manifests"),
        ({"manifests": ["a", "a"]}, "/manifests"),
        ({"manifests": ["a/../b"]}, "/manifests/0"),
        ({"source": {"provider": "ftp"}}, "/source"),
        ({"source": {"provider": "s3", "bucket": "pets", "auth": {"type": "magic"}}}, "/source/auth"),
        ({"source": None}, "/source"),
    ],
)
async def test_a_body_of_another_shape_is_422_with_a_pointer(
    service: Service, s3_bucket: S3Bucket, body: dict[str, Any], pointer: str
) -> None:
    whole = (s3_body(s3_bucket) | body) if body else {"source": s3_source(s3_bucket)}
    answer = await service.admin.post("/v1/storages", json=whole)
    assert answer.status_code == 422, answer.text
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]


async def test_probe_gives_a_checklist_and_saves_nothing(service: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("a.jpg", b"picture")
    await s3_bucket.put("manifest.jsonl", b"x")
    body = s3_body(s3_bucket, manifests=["manifest.jsonl"])
    answer = await service.admin.post("/v1/storages/probe", params={"write": "true"}, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["ok"] is True
    assert [check["name"] for check in answer.json()["checks"]] == [
        "name resolution",
        "connection",
        "region",
        "clock",
        "credentials",
        "list",
        "read",
        "ranged read",
        "write",
        "manifest manifest.jsonl",
    ]
    assert (await service.admin.get("/v1/storages")).json()["items"] == []
    left = await s3_bucket.client.list_objects_v2(Bucket=s3_bucket.name)
    assert left["KeyCount"] == 2


async def test_a_refused_probe_says_so_with_its_checklist(service: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("a.jpg", b"picture")
    reader = s3_bucket.server.reader
    auth = s3_auth(s3_bucket, access_key_id=reader.access_key_id, secret_access_key=reader.secret_access_key)
    body = {"display_name": "x", "source": s3_source(s3_bucket, **auth), "manifests": ["none.jsonl"]}
    answer = await service.admin.post("/v1/storages/probe", params={"write": "true"}, json=body)
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["ok"] is False
    failed = {check["name"]: check for check in problem["checks"] if not check["ok"]}
    assert set(failed) == {"write", "manifest none.jsonl"}
    assert all(check["remedy"] or check["detail"] for check in failed.values())
    assert "/manifests/0" in [error["pointer"] for error in problem["errors"]]


async def test_health_tells_live_what_is_wrong(service: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("a.jpg", b"picture")
    storage = await service.attach(s3_body(s3_bucket))
    path = f"/v1/storages/{storage}/health"
    well = (await service.admin.get(path)).json()
    assert (well["ok"], well["state"]) == (True, "available")
    await s3_bucket.delete("a.jpg")
    await s3_bucket.client.delete_bucket(Bucket=s3_bucket.name)
    gone = (await service.admin.get(path)).json()
    assert (gone["ok"], gone["state"]) == (False, "not_found")
    assert any(check["remedy"] for check in gone["checks"])
