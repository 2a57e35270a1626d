"""Storages: attach, list, show, change and detach, on real buckets."""

import asyncio
from typing import Any

import pytest

from tests.api.conftest import Service, azure_source, s3_body, s3_source
from tests.servers.azurite import AzureContainer, AzureServer
from tests.servers.s3 import S3Bucket

MANIFEST = b'{"version":"1.1"}\n{"type":"images"}\n{"name":"a","extension":".jpg","width":1,"height":1}\n'


async def test_attaches_a_bucket_and_shows_no_secret(service: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("manifest.jsonl", MANIFEST)
    answer = await service.admin.post("/v1/storages", json=s3_body(s3_bucket, manifests=["manifest.jsonl"]))
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert answer.headers["location"] == f"{service.url}/v1/storages/{made['id']}"
    assert made["source"] == {
        "provider": "s3",
        "bucket": s3_bucket.name,
        "region": None,
        "endpoint_url": s3_bucket.server.endpoint_url,
        "prefix": "",
        "auth": {
            "type": "key_pair",
            "access_key_id_last4": s3_bucket.server.admin.access_key_id[-4:],
            "expires_at": None,
        },
    }
    assert (made["display_name"], made["description"], made["organization"]) == ("Pets", "", None)
    assert (made["owner"], made["manifests"], made["delivery"]) == ("root", ["manifest.jsonl"], "proxy")
    assert made["created_at"].endswith("Z")
    assert s3_bucket.server.admin.secret_access_key not in answer.text
    again = await service.admin.get(f"/v1/storages/{made['id']}")
    assert again.json() == made
    assert again.headers["etag"] == '"1"'


async def test_attaches_a_public_bucket_without_a_credential(service: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("a.jpg", b"picture")
    await s3_bucket.publish()
    source = s3_source(s3_bucket, auth={"type": "anonymous"})
    storage = await service.attach({"display_name": "Public", "source": source})
    answer = await service.admin.get(f"/v1/storages/{storage}/objects/a.jpg")
    assert (answer.status_code, answer.content) == (200, b"picture")


def azure_credentials(container: AzureContainer) -> dict[str, dict[str, Any]]:
    """Every way into a container."""
    server = container.server
    return {
        "account key": {"type": "account_key", "account_key": server.account_key},
        "container sas": {"type": "sas_token", "sas_token": server.container_sas(container.name)},
        "account sas": {"type": "sas_token", "sas_token": "?" + server.account_sas()},
        "connection string": {"type": "connection_string", "connection_string": server.connection_string},
    }


@pytest.mark.parametrize("way", ["account key", "container sas", "account sas", "connection string"])
async def test_attaches_an_azure_container(
    service: Service, azure_container: AzureContainer, way: str
) -> None:
    await azure_container.put("a.jpg", b"picture")
    source = azure_source(azure_container, azure_credentials(azure_container)[way])
    if way == "connection string":
        del source["account_name"], source["endpoint_url"]
    answer = await service.admin.post("/v1/storages", json={"display_name": way, "source": source})
    assert answer.status_code == 201, answer.text
    assert azure_container.server.account_key not in answer.text
    assert "sig" not in answer.json()["source"]["auth"]
    if way.endswith("sas"):
        assert answer.json()["source"]["auth"]["expires_at"].endswith("Z")
    read = await service.admin.get(f"/v1/storages/{answer.json()['id']}/objects/a.jpg")
    assert (read.status_code, read.content) == (200, b"picture")


async def test_attaches_a_public_azure_container(service: Service, azurite: AzureServer) -> None:
    async with azurite.container(public_access="container") as container:
        await container.put("a.jpg", b"picture")
        source = azure_source(container, {"type": "anonymous"})
        storage = await service.attach({"display_name": "Public", "source": source})
        answer = await service.admin.get(f"/v1/storages/{storage}/objects/a.jpg")
        assert (answer.status_code, answer.content) == (200, b"picture")


async def test_lists_by_search_provider_order_and_cursor(
    service: Service, s3_bucket: S3Bucket, azure_container: AzureContainer
) -> None:
    for name in ("cats", "Dogs", "birds"):
        await service.attach(s3_body(s3_bucket, display_name=name, description=f"All {name} of 100%_ us"))
    await service.attach({"display_name": "azure", "source": azure_source(azure_container)})

    async def names(**params: Any) -> list[str]:
        answer = await service.admin.get("/v1/storages", params=params)
        assert answer.status_code == 200, answer.text
        return [item["display_name"] for item in answer.json()["items"]]

    assert await names() == ["cats", "Dogs", "birds", "azure"]
    assert await names(sort="-id") == ["azure", "birds", "Dogs", "cats"]
    assert await names(sort="display_name") == ["Dogs", "azure", "birds", "cats"]
    assert await names(search="dogs ALL") == ["Dogs"]
    assert await names(search="100%_") == ["cats", "Dogs", "birds"]
    assert await names(search="1000") == []
    assert await names(provider="azure") == ["azure"]
    for sort in ("id", "-id", "display_name", "-display_name", "created_at", "-updated_at"):
        seen: list[str] = []
        params: dict[str, Any] = {"sort": sort, "limit": 1}
        while "cursor" not in params or params["cursor"]:
            page = (await service.admin.get("/v1/storages", params=params)).json()
            seen += [item["display_name"] for item in page["items"]]
            params["cursor"] = page["next_cursor"]
        assert seen == await names(sort=sort), sort


@pytest.mark.parametrize("cursor", ["x", "", "bnVsbA", "W10", "WyJpZCIsMSwyXQ==x", "é", "W3sifV0"])
async def test_refuses_a_cursor_that_it_did_not_give(service: Service, cursor: str) -> None:
    answer = await service.admin.get("/v1/storages", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "query:cursor")


async def test_an_owner_sees_his_own_and_an_admin_all(service: Service, s3_bucket: S3Bucket) -> None:
    async with service.user("ann") as ann, service.user("ben") as ben:
        made = (await ann.post("/v1/storages", json=s3_body(s3_bucket))).json()
        path = f"/v1/storages/{made['id']}"
        assert made["owner"] == "ann"
        assert [item["id"] for item in (await ann.get("/v1/storages")).json()["items"]] == [made["id"]]
        assert (await ben.get("/v1/storages")).json()["items"] == []
        assert [item["id"] for item in (await service.admin.get("/v1/storages")).json()["items"]] == [
            made["id"]
        ]
        for method, tail in [
            ("GET", ""),
            ("PATCH", ""),
            ("DELETE", ""),
            ("GET", "/health"),
            ("GET", "/objects"),
            ("GET", "/objects/a"),
            ("GET", "/manifests"),
            ("POST", "/manifests"),
        ]:
            body = {"json": {"key": "a"}} if tail == "/manifests" else {"json": {}}
            hidden = await ben.request(method, path + tail, **({} if method in {"GET", "DELETE"} else body))
            assert hidden.status_code == 404, (method, tail)
        assert (await ann.get(path)).status_code == 200


async def test_a_worker_may_not_attach(service: Service, s3_bucket: S3Bucket) -> None:
    async with service.user("walt", "worker") as walt:
        answer = await walt.post("/v1/storages", json=s3_body(s3_bucket))
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems/forbidden")


async def test_a_patch_changes_only_what_it_names(service: Service, s3_bucket: S3Bucket) -> None:
    storage = await service.attach(s3_body(s3_bucket, description="old"))
    path = f"/v1/storages/{storage}"
    before = (await service.admin.get(path)).json()
    answer = await service.admin.patch(
        path,
        json={"display_name": "New", "source": {"prefix": "sub/"}},
        headers={"Content-Type": "application/merge-patch+json"},
    )
    assert answer.status_code == 200, answer.text
    after = answer.json()
    assert answer.headers["etag"] == '"2"'
    assert after["updated_at"] > before["updated_at"]
    changed = {"display_name": "New", "updated_at": after["updated_at"]}
    assert after == before | changed | {"source": before["source"] | {"prefix": "sub/"}}
    reset = (await service.admin.patch(path, json={"description": None})).json()
    assert (reset["description"], reset["display_name"]) == ("", "New")


async def test_a_patch_is_conditional_on_its_version(service: Service, s3_bucket: S3Bucket) -> None:
    path = f"/v1/storages/{await service.attach(s3_body(s3_bucket))}"
    stale = await service.admin.patch(path, json={"display_name": "A"}, headers={"If-Match": '"7"'})
    assert (stale.status_code, stale.json()["type"]) == (412, "/problems/precondition-failed")
    fresh = await service.admin.patch(path, json={"display_name": "A"}, headers={"If-Match": '"1", "9"'})
    assert fresh.status_code == 200
    gone = await service.admin.delete(path, headers={"If-Match": '"1"'})
    assert gone.status_code == 412
    assert (await service.admin.delete(path, headers={"If-Match": '"2"'})).status_code == 204
    assert (await service.admin.get(path)).status_code == 404


async def test_another_bucket_asks_for_the_secret_again(service: Service, s3_bucket: S3Bucket) -> None:
    path = f"/v1/storages/{await service.attach(s3_body(s3_bucket))}"
    async with s3_bucket.server.bucket() as other:
        await other.put("b.jpg", b"other")
        for change in (
            {"bucket": other.name},
            {"region": "eu-west-1"},
            {"endpoint_url": "http://127.0.0.1:9"},
        ):
            refused = await service.admin.patch(path, json={"source": change})
            assert refused.status_code == 422, change
            assert refused.json()["errors"][0]["pointer"] == "/source/auth"
        source = {"bucket": other.name, "auth": s3_source(other)["auth"]}
        moved = await service.admin.patch(path, json={"source": source})
        assert moved.status_code == 200, moved.text
        assert (await service.admin.get(f"{path}/objects/b.jpg")).content == b"other"


async def test_a_refused_patch_changes_nothing(service: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("a.jpg", b"picture")
    path = f"/v1/storages/{await service.attach(s3_body(s3_bucket))}"
    before = (await service.admin.get(path)).json()
    wrong = s3_source(s3_bucket)["auth"] | {"secret_access_key": "wrong"}
    for change, pointer in [
        ({"display_name": "X", "source": {"auth": wrong}}, "/source/auth/secret_access_key"),
        ({"display_name": "X", "manifests": ["none.jsonl"]}, "/manifests/0"),
        ({"display_name": ""}, "/display_name"),
        ({"id": 7}, "/id"),
        ({"owner": "me"}, "/owner"),
        ({"created_at": "2020-01-01"}, "/created_at"),
        ({"source": {"auth": {"type": "key_pair"}}}, "/source/auth/access_key_id"),
        ({"source": {"container": "x"}}, "/source/container"),
        ({"source": {"provider": "azure"}}, "/source/container"),
    ]:
        answer = await service.admin.patch(path, json=change)
        assert answer.status_code == 422, change
        assert answer.json()["errors"][0]["pointer"] == pointer, change
    assert (await service.admin.get(path)).json() == before
    assert (await service.admin.get(f"{path}/objects/a.jpg")).content == b"picture"


async def test_a_credential_is_replaced_whole(service: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("a.jpg", b"picture")
    path = f"/v1/storages/{await service.attach(s3_body(s3_bucket))}"
    reader = s3_bucket.server.reader
    auth = {
        "type": "key_pair",
        "access_key_id": reader.access_key_id,
        "secret_access_key": reader.secret_access_key,
    }
    answer = await service.admin.patch(path, json={"source": {"auth": auth}})
    assert answer.json()["source"]["auth"]["access_key_id_last4"] == reader.access_key_id[-4:]
    assert (await service.admin.get(f"{path}/objects/a.jpg")).content == b"picture"


async def test_deleting_leaves_the_bucket_alone(service: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("manifest.jsonl", MANIFEST)
    storage = await service.attach(s3_body(s3_bucket, manifests=["manifest.jsonl"]))
    path = f"/v1/storages/{storage}"
    manifest = (await service.admin.get(f"{path}/manifests")).json()["items"][0]["id"]
    answer = await service.admin.delete(path)
    assert (answer.status_code, answer.content) == (204, b"")
    for gone in (path, f"{path}/objects/manifest.jsonl", f"/v1/manifests/{manifest}"):
        assert (await service.admin.get(gone)).status_code == 404
    kept = await s3_bucket.client.get_object(Bucket=s3_bucket.name, Key="manifest.jsonl")
    assert await kept["Body"].read() == MANIFEST


async def test_deleting_while_its_manifests_are_registered_takes_turns(
    service: Service, s3_bucket: S3Bucket
) -> None:
    await s3_bucket.put("manifest.jsonl", MANIFEST)

    async def come_and_go(one: int) -> None:
        for round_ in range(6):
            storage = await service.attach(s3_body(s3_bucket, manifests=["manifest.jsonl"]))
            await asyncio.sleep(0.01 * ((one * 7 + round_) % 9))
            answer = await service.admin.delete(f"/v1/storages/{storage}")
            assert answer.status_code == 204, answer.text

    await asyncio.gather(*(come_and_go(one) for one in range(5)))


async def test_a_manifest_list_attaches_and_detaches(service: Service, s3_bucket: S3Bucket) -> None:
    for key in ("a.jsonl", "b.jsonl"):
        await s3_bucket.put(key, MANIFEST)
    path = f"/v1/storages/{await service.attach(s3_body(s3_bucket, manifests=['a.jsonl']))}"
    both = await service.admin.patch(path, json={"manifests": ["b.jsonl", "a.jsonl"]})
    assert both.json()["manifests"] == ["b.jsonl", "a.jsonl"]
    one = await service.admin.patch(path, json={"manifests": ["b.jsonl"]})
    assert one.json()["manifests"] == ["b.jsonl"]
    listed = (await service.admin.get(f"{path}/manifests")).json()["items"]
    assert {item["key"]: item["attached"] for item in listed} == {"a.jsonl": False, "b.jsonl": True}


async def test_tells_a_form_what_it_needs(service: Service) -> None:
    answer = (await service.admin.get("/v1/providers")).json()["items"]
    assert {item["name"]: [auth["type"] for auth in item["auth_types"]] for item in answer} == {
        "s3": ["key_pair", "anonymous"],
        "azure": ["sas_token", "account_key", "connection_string", "anonymous"],
    }
    assert {"eu-central-1", "us-east-1"} <= set(answer[0]["regions"])
