"""The S3 servers answer, and each identity may do what its name says."""

import httpx
import pytest
from botocore.exceptions import ClientError

from tests.servers.s3 import KeyPair, S3Bucket, S3Server


@pytest.mark.parametrize("name", ["s3", "rclone_s3", "juicefs_s3"])
async def test_keeps_an_object(name: str, request: pytest.FixtureRequest) -> None:
    server: S3Server = request.getfixturevalue(name)
    async with server.bucket() as bucket:
        etag = await bucket.put("a folder/ä+b.txt", b"0123456789", "text/plain")
        answer = await bucket.client.get_object(Bucket=bucket.name, Key="a folder/ä+b.txt")
        async with answer["Body"] as body:
            assert await body.read() == b"0123456789"
        assert answer["ETag"] == etag


async def status_of(server: S3Server, keys: KeyPair, operation: str, **facts: str) -> int:
    async with server.client(keys) as client:
        try:
            answer = await getattr(client, operation)(**facts)
        except ClientError as error:
            return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
        return int(answer["ResponseMetadata"]["HTTPStatusCode"])


@pytest.mark.parametrize(
    ("who", "reads", "lists"), [("reader", 200, 200), ("unlisting", 200, 403), ("stranger", 403, 403)]
)
async def test_identities_have_their_rights_and_no_more(
    s3: S3Server, s3_bucket: S3Bucket, who: str, reads: int, lists: int
) -> None:
    await s3_bucket.put("k", b"x")
    keys: KeyPair = getattr(s3, who)
    assert await status_of(s3, keys, "get_object", Bucket=s3_bucket.name, Key="k") == reads
    assert await status_of(s3, keys, "list_objects_v2", Bucket=s3_bucket.name) == lists
    assert await status_of(s3, keys, "put_object", Bucket=s3_bucket.name, Key="n") == 403


async def test_only_a_published_bucket_is_open_to_anybody(s3: S3Server, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("k", b"open")
    async with httpx.AsyncClient(base_url=s3.endpoint_url) as anybody:
        assert (await anybody.get(f"/{s3_bucket.name}/k")).status_code == 403
        await s3_bucket.publish()
        assert (await anybody.get(f"/{s3_bucket.name}/k")).content == b"open"
        assert (await anybody.get(f"/{s3_bucket.name}?list-type=2")).status_code == 200
