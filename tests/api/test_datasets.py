"""The main job: a folder of drawn pictures in a bucket, attached, registered, and streamed byte for byte."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from app.manifests.folder import build
from app.samples import draw
from tests.api.conftest import Service, azure_source, s3_source
from tests.servers.azurite import AzureContainer
from tests.servers.s3 import S3Bucket

KEYS = {"plain": "", "below a folder": "datasets/day 1 é/"}


def pictures(folder: Path, prefix: str) -> Mapping[str, bytes]:
    """Drawn pictures and their manifest, by the keys they get in the bucket."""
    draw(folder, 15)
    manifest = build(folder)
    bodies = {f"{prefix}{path}": (folder / path).read_bytes() for path in manifest.paths}
    return bodies | {f"{prefix}manifest.jsonl": manifest.text}


async def serves_everything(service: Service, source: dict[str, Any], bodies: Mapping[str, bytes]) -> None:
    """Attach, register, and compare every picture, by its frame and by its key."""
    key = next(key for key in bodies if key.endswith("manifest.jsonl"))
    storage = await service.attach({"display_name": "Drawn", "source": source})
    manifest = await service.register(storage, key)
    assert (manifest["state"], manifest["problem_count"]) == ("ready", 0)
    path = f"/v1/manifests/{manifest['id']}/frames"
    frames = (await service.admin.get(path, params={"limit": 1000})).json()["items"]
    assert {frame["key"] for frame in frames} == set(bodies) - {key}
    for frame in frames:
        image = await service.admin.get(f"{path}/{frame['number']}/image")
        found = await service.admin.get(f"/v1/storages/{storage}/objects/{frame['key']}")
        assert image.content == found.content == bodies[frame["key"]]
        assert image.headers["content-type"] in {"image/jpeg", "image/png"}


@pytest.mark.parametrize("prefix", KEYS.values(), ids=KEYS)
async def test_a_dataset_in_an_s3_bucket_is_served(
    both_ways: Service, s3_bucket: S3Bucket, tmp_path: Path, prefix: str
) -> None:
    bodies = pictures(tmp_path / "pictures", prefix)
    for key, body in bodies.items():
        await s3_bucket.put(key, body)
    await serves_everything(both_ways, s3_source(s3_bucket), bodies)


@pytest.mark.parametrize("prefix", KEYS.values(), ids=KEYS)
async def test_a_dataset_in_an_azure_container_is_served(
    both_ways: Service, azure_container: AzureContainer, tmp_path: Path, prefix: str
) -> None:
    bodies = pictures(tmp_path / "pictures", prefix)
    for key, body in bodies.items():
        await azure_container.put(key, body)
    await serves_everything(both_ways, azure_source(azure_container), bodies)
