"""The embedded S3 server keeps its objects and keys, and belongs to one process."""

import stat
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.embedded import EmbeddedServerError
from app.embedded.s3 import EmbeddedS3, EmbeddedS3Address
from tests.servers.s3 import KeyPair, S3Server


def server_at(address: EmbeddedS3Address) -> S3Server:
    keys = KeyPair(address.access_key_id, address.secret_access_key)
    return S3Server(address.endpoint_url, keys, keys, keys, keys)


async def test_keeps_objects_and_keys_even_when_its_port_is_taken(servers_dir: Path) -> None:
    import socket

    folder = servers_dir / "embedded-s3"
    with EmbeddedS3(folder) as first:
        async with server_at(first).client() as client:
            await client.create_bucket(Bucket="kept")
            await client.put_object(Bucket="kept", Key="k", Body=b"kept")
        modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path.is_file()}
        assert (modes, stat.S_IMODE(folder.stat().st_mode)) == ({0o600}, 0o700)
        with pytest.raises(EmbeddedServerError, match="another process"):
            EmbeddedS3(folder).start()
    with (
        socket.create_server(("127.0.0.1", urlsplit(first.endpoint_url).port or 0)),
        EmbeddedS3(folder) as second,
    ):
        assert second.endpoint_url != first.endpoint_url
        assert second.secret_access_key == first.secret_access_key
        async with server_at(second).client() as client:
            answer = await client.get_object(Bucket="kept", Key="k")
            async with answer["Body"] as body:
                assert await body.read() == b"kept"
    assert first.secret_access_key not in repr(first)
