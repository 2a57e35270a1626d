"""A credential is in no answer, log line, error, repr or database file: planted, then looked for everywhere."""

import asyncio
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from app.settings import Settings
from tests.api.conftest import Service, StartService, azure_source, s3_body, s3_source
from tests.servers.azurite import AzureContainer
from tests.servers.s3 import S3Bucket

PLANTED = "PLANTEDsecret0123456789abcdefPLANTED"


def spellings(secret: str) -> Iterator[bytes]:
    """A secret as it could lie somewhere: plain, or percent-encoded."""
    yield secret.encode()
    yield secret.replace("/", "%2F").replace("+", "%2B").replace("=", "%3D").encode()


def database_files(servers_dir: Path) -> bytes:
    """Every byte of the cluster's files, the write-ahead log's too."""
    cluster = next(servers_dir.rglob("PG_VERSION")).parent
    return b"".join(path.read_bytes() for path in cluster.rglob("*") if path.is_file())


async def failing_and_working(service: Service, bucket: S3Bucket, container: AzureContainer) -> list[str]:
    """Attach, fail, probe, patch and list with planted and real secrets; give every answer's text."""
    wrong = s3_source(bucket)["auth"] | {"secret_access_key": PLANTED, "session_token": PLANTED}
    sas = container.server.container_sas(container.name)
    bodies = [
        s3_body(bucket),
        s3_body(bucket, source=s3_source(bucket, auth=wrong)),
        s3_body(bucket, source=s3_source(bucket, auth=wrong, endpoint_url="http://10.9.9.9")),
        s3_body(bucket, source=s3_source(bucket, auth=wrong | {"access_key_id": PLANTED + "\x01"})),
        s3_body(bucket, source=s3_source(bucket, auth=wrong | {"extra": PLANTED})),
        {"display_name": "a", "source": azure_source(container)},
        {"display_name": "a", "source": azure_source(container, {"type": "sas_token", "sas_token": sas})},
        {"display_name": "a", "source": azure_source(container, {"type": "sas_token", "sas_token": PLANTED})},
        {
            "display_name": "a",
            "source": azure_source(container, {"type": "connection_string", "connection_string": PLANTED}),
        },
    ]
    attaching = itertools.product(("/v1/storages", "/v1/storages/probe"), bodies)
    texts = [(await service.admin.post(path, json=body)).text for path, body in attaching]
    storage = await service.attach(s3_body(bucket))
    patch = {"source": {"auth": wrong}}
    texts.append((await service.admin.patch(f"/v1/storages/{storage}", json=patch)).text)
    texts.append((await service.admin.get("/v1/storages")).text)
    texts.append((await service.admin.get(f"/v1/storages/{storage}/objects/none")).text)
    await bucket.client.delete_bucket(Bucket=bucket.name)
    broken = [f"/v1/storages/{storage}{tail}" for tail in ("/health", "/objects", "/objects/none")]
    return texts + [(await service.admin.get(path)).text for path in (*broken, "/metrics")]


@pytest.mark.parametrize("form", ["json", "console"])
async def test_no_secret_is_ever_shown_or_stored_in_clear(
    start_service: StartService,
    s3_bucket: S3Bucket,
    azure_container: AzureContainer,
    servers_dir: Path,
    database_url: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    form: str,
) -> None:
    caplog.set_level("DEBUG")
    async with start_service(log_level="debug", log_format=form) as service:
        texts = await failing_and_working(service, s3_bucket, azure_container)
        token = service.admin.headers["authorization"].removeprefix("Bearer ")
        await asyncio.sleep(0.2)
    connection = await asyncpg.connect(database_url)
    await connection.execute("CHECKPOINT")
    await connection.close()
    server = azure_container.server
    secrets = [PLANTED, s3_bucket.server.admin.secret_access_key, server.account_key]
    out, err = capfd.readouterr()
    seen = {"answers": "".join(texts), "stdout": out, "stderr": err, "log": caplog.text}
    kept = database_files(servers_dir)
    assert s3_bucket.name.encode() in kept, "these are not the files that the service wrote"
    for secret in secrets:
        for place, text in seen.items():
            assert secret not in text, place
        for spelling in spellings(secret):
            assert spelling not in kept
    assert token.encode() not in kept
    assert token not in seen["stderr"] + seen["answers"]
    assert not re.search(r"sig=[A-Za-z0-9%+/]{10}", seen["stderr"] + seen["log"] + seen["answers"])


def test_settings_show_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMEGATE_DATABASE_URL", f"postgresql://u:{PLANTED}@h/d")
    monkeypatch.setenv("FRAMEGATE_SECRET_KEYS", "k1:" + "A" * 43 + "=")
    settings = Settings.read()
    assert PLANTED not in repr(settings) + str(settings)
    assert "A" * 43 not in repr(settings)


async def test_the_data_directory_is_the_owners_alone(tmp_path: Path) -> None:
    from app.secrets import load_keys

    settings = Settings.read(_env_file=None, data_dir=tmp_path / "data", database_url=None)
    first = load_keys(settings)
    assert (tmp_path / "data" / "secret-keys").stat().st_mode & 0o777 == 0o600
    assert load_keys(settings) == first
