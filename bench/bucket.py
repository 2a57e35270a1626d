"""The bucket that all compared programs read: an nginx that serves a folder and can be listed like S3.

It checks no signature, and its list is one static document. So it is fast, the same for all, and never what
limits them; a real bucket's own cost would only hide the differences.
"""

import hashlib
import io
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from bench.nginx import start_nginx
from bench.processes import LOOPBACK, Running, free_port
from bench.tls import Certificate

NAME = "pics"
REGION = "us-east-1"
PICTURE_BYTES = 195_000
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bucket:
    """The running bucket; objects lie at `endpoint_url`/`NAME`/key (path style)."""

    endpoint_url: str
    folder: Path
    process: Running
    ca_file: Path | None = None
    """The authority to trust, where it speaks TLS."""

    def body(self, key: str) -> bytes:
        """Give what the bucket holds under a key."""
        return (self.folder / NAME / key).read_bytes()

    def put(self, key: str, body: bytes) -> None:
        """Hold one object more; the list does not name it."""
        (self.folder / NAME / key).write_bytes(body)

    def copy(self, key: str, *copies: str) -> None:
        """Hold an object under further keys, without another byte on the disk."""
        for one in copies:
            (self.folder / NAME / one).hardlink_to(self.folder / NAME / key)


@contextmanager
def bucket(folder: Path, objects: dict[str, bytes], tls: Certificate | None = None) -> Iterator[Bucket]:
    """Serve objects out of `folder` until the block ends; over TLS with a certificate."""
    (folder / NAME).mkdir()
    (folder / "list.xml").write_text(_list(objects))
    port = free_port()
    security = "" if tls is None else _TLS.format(chain=tls.chain_file, key=tls.key_file)
    server = _SERVER.format(
        port=port, folder=folder, name=NAME, ssl="" if tls is None else "ssl", security=security
    )
    with start_nginx("bucket", folder, port, server) as process:
        scheme, ca_file = ("http", None) if tls is None else ("https", tls.ca_file)
        one = Bucket(f"{scheme}://{LOOPBACK}:{port}", folder, process, ca_file)
        for key, body in objects.items():
            one.put(key, body)
        yield one


_TLS = """
        ssl_certificate {chain};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
"""
_SERVER = """
    open_file_cache max=100;
    sendfile on;
    tcp_nopush on;
    server {{
        listen 127.0.0.1:{port} backlog=2048 {ssl};
        {security}
        root {folder};
        types {{ image/jpeg jpg; }}
        location = /{name} {{ default_type application/xml; alias {folder}/list.xml; }}
        location = /{name}/ {{ default_type application/xml; alias {folder}/list.xml; }}
    }}
"""


def picture(size_bytes: int = PICTURE_BYTES) -> bytes:
    """Draw a JPEG of noise that has exactly so many bytes; the same one each time."""
    width, height = 640, 480
    noise = Image.frombytes("RGB", (width, height), random.Random(195).randbytes(width * height * 3))
    for quality in range(95, 0, -1):
        room = size_bytes - len(_jpeg(noise, quality)) - 4
        if room >= 0:  # a comment takes four bytes more than its text
            return _jpeg(noise, quality, b"." * room)
    raise ValueError(f"no such picture has only {size_bytes} bytes")


def _jpeg(image: Image.Image, quality: int, comment: bytes | None = None) -> bytes:
    target = io.BytesIO()
    image.save(target, "JPEG", quality=quality, **({} if comment is None else {"comment": comment}))
    return target.getvalue()


def large_object(size_mib: int) -> bytes:
    """Give noise of so many MiB, no two of them equal."""
    block = random.Random(256).randbytes(MIB - 8)
    return b"".join(number.to_bytes(8, "big") + block for number in range(size_mib))


def _list(objects: dict[str, bytes]) -> str:
    entries = "".join(_entry(key, body) for key, body in objects.items())
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{NAME}</Name><Prefix></Prefix><KeyCount>{len(objects)}</KeyCount><MaxKeys>1000</MaxKeys>"
        f"<IsTruncated>false</IsTruncated>{entries}</ListBucketResult>\n"
    )


def _entry(key: str, body: bytes) -> str:
    etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
    return (
        f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;{etag}&quot;</ETag><Size>{len(body)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
    )
