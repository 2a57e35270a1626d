"""The requests that write to a container: whole blobs, blocks, and the list that makes a blob of them."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from io import BytesIO
from secrets import token_hex
from typing import Any

from azure.core import MatchConditions
from azure.storage.blob import BlobBlock, ContentSettings
from azure.storage.blob.aio import BlobClient, ContainerClient

from app.storage.answers import entity_tag
from app.storage.base import Pin

Explained = Callable[[], AbstractAsyncContextManager[None]]
"""Turns what a write raises inside it into domain errors."""


async def put_blob(
    client: ContainerClient, key: str, body: bytes, media_type: str | None, pin: Pin
) -> str | None:
    """Store a blob in one request and give its entity tag as the answer has it."""
    answer = await client.get_blob_client(key).upload_blob(
        body, overwrite=True, content_settings=_kind(media_type), **_conditions(pin)
    )
    return _text(answer.get("etag"))


async def delete_blob(client: ContainerClient, key: str, pin: Pin) -> None:
    """Delete a blob; one that has snapshots stays, since they would go with it."""
    await client.get_blob_client(key).delete_blob(**_conditions(pin))


class AzureUpload:
    """A blob made of blocks; blocks that no list names vanish by themselves after a week.

    https://learn.microsoft.com/rest/api/storageservices/put-block-list. The ids are drawn anew for each upload,
    so that two uploads of one key at once do not take each other's blocks.
    """

    def __init__(self, blob: BlobClient, media_type: str | None, explained: Explained) -> None:
        self._blob = blob
        self._media_type = media_type
        self._explained = explained
        self._token = token_hex(8)
        self._numbers: list[int] = []

    async def put_part(self, number: int, body: bytes) -> None:
        """Store one block."""
        async with self._explained():
            await self._blob.stage_block(self._id(number), BytesIO(body), length=len(body))
        self._numbers.append(number)

    async def complete(self, pin: Pin) -> str | None:
        """Make the blob."""
        blocks = [BlobBlock(self._id(number)) for number in sorted(self._numbers)]
        async with self._explained():
            answer = await self._blob.commit_block_list(
                blocks, content_settings=_kind(self._media_type), **_conditions(pin)
            )
        return entity_tag(_text(answer.get("etag")))

    async def abort(self) -> None:
        """Leave the blocks: there is no request to take them away."""

    def _id(self, number: int) -> str:
        return f"{self._token}{number:05d}"  # all ids of a blob have one length


def _conditions(pin: Pin) -> dict[str, Any]:
    if pin.missing:
        return {"match_condition": MatchConditions.IfMissing}
    return {} if pin.etag is None else {"etag": pin.etag, "match_condition": MatchConditions.IfNotModified}


def _kind(media_type: str | None) -> ContentSettings | None:
    return None if media_type is None else ContentSettings(content_type=media_type)


def _text(tag: object) -> str | None:
    return None if tag is None else str(tag)
