"""The requests that write to a bucket: whole objects, parts, and their completion."""

import asyncio
import base64
import hashlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from io import BytesIO
from typing import Any

from app.storage.answers import entity_tag
from app.storage.base import Pin

_HASHED_AT_ONCE = 256 * 1024
"""So many bytes are hashed in well under a millisecond; more go to a thread."""

Explained = Callable[[], AbstractAsyncContextManager[None]]
"""Turns what a write raises inside it into domain errors."""


async def put_object(
    client: Any, bucket: str, key: str, body: bytes, media_type: str | None, pin: Pin
) -> str | None:
    """Store an object in one request and give its entity tag as the answer has it."""
    answer: dict[str, Any] = await client.put_object(
        Bucket=bucket, Key=key, **await _content(body), **_kind(media_type), **_conditions(pin)
    )
    return answer.get("ETag")


async def delete_object(client: Any, bucket: str, key: str, pin: Pin) -> None:
    """Delete an object; S3 does not say whether there was one."""
    await client.delete_object(Bucket=bucket, Key=key, **_conditions(pin))


class S3Upload:
    """One multipart upload (https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html)."""

    def __init__(self, client: Any, bucket: str, key: str, upload_id: str, explained: Explained) -> None:
        self._client = client
        self._which = {"Bucket": bucket, "Key": key, "UploadId": upload_id}
        self._explained = explained
        self._tags: dict[int, str] = {}

    @classmethod
    async def begin(
        cls, client: Any, bucket: str, key: str, media_type: str | None, explained: Explained
    ) -> "S3Upload":
        """Begin one; the caller completes or aborts it."""
        async with explained():
            answer = await client.create_multipart_upload(Bucket=bucket, Key=key, **_kind(media_type))
        return cls(client, bucket, key, answer["UploadId"], explained)

    async def put_part(self, number: int, body: bytes) -> None:
        """Store one part."""
        async with self._explained():
            answer = await self._client.upload_part(**self._which, PartNumber=number, **await _content(body))
        self._tags[number] = answer["ETag"]

    async def complete(self, pin: Pin) -> str | None:
        """Make the object."""
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in sorted(self._tags.items())]
        async with self._explained():
            answer = await self._client.complete_multipart_upload(
                **self._which, MultipartUpload={"Parts": parts}, **_conditions(pin)
            )
        return entity_tag(answer.get("ETag"))

    async def abort(self) -> None:
        """Take the parts away."""
        async with self._explained():
            try:
                await self._client.abort_multipart_upload(**self._which)
            except self._client.exceptions.NoSuchUpload:
                return


def _conditions(pin: Pin) -> dict[str, str]:
    if pin.missing:
        return {"IfNoneMatch": "*"}
    return {} if pin.etag is None else {"IfMatch": pin.etag}


def _kind(media_type: str | None) -> dict[str, str]:
    return {} if media_type is None else {"ContentType": media_type}


async def _content(body: bytes) -> dict[str, Any]:
    """Give the body with its MD5, the one checksum that every server understands and checks."""
    at_once = len(body) <= _HASHED_AT_ONCE
    digest = _md5(body) if at_once else await asyncio.to_thread(_md5, body)
    return {"Body": BytesIO(body), "ContentMD5": base64.b64encode(digest).decode()}


def _md5(body: bytes) -> bytes:
    return hashlib.md5(body, usedforsecurity=False).digest()
