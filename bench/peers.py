"""What is compared: each peer serves the same bucket in a process of its own, and is asked by URL."""

import ssl
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.bucket import NAME, REGION, Bucket
from bench.nginx import start_nginx
from bench.processes import LOOPBACK, PYTHON, Running, find_program, free_port, running
from bench.service import HOT_BYTES, service
from bench.tls import SERVER_NAME

BUCKET, NGINX, STOCK_NGINX, REFERENCE, FRAMEGATE, WARM_FRAMEGATE, RCLONE = (
    "the bucket itself",
    "nginx proxy_pass",
    "nginx, stock buffers",
    "plain FastAPI + aiobotocore",
    "Framegate",
    "Framegate, warm memory",
    "rclone serve http",
)


@dataclass(frozen=True, slots=True)
class Peer:
    """One running peer: `url` + key is an object's address."""

    name: str
    url: str
    process: Running
    headers: Mapping[str, str] = field(default_factory=dict)
    ca_file: Path | None = None
    """The authority to trust, where `url` is of TLS."""

    def fetch(self, key: str) -> bytes:
        """Get an object whole; raises `OSError` for any answer but 200."""
        request = urllib.request.Request(self.url + key, headers=dict(self.headers))
        trusting = None if self.ca_file is None else ssl.create_default_context(cafile=self.ca_file)
        with urllib.request.urlopen(request, timeout=60, context=trusting) as answer:
            body: bytes = answer.read()
            return body


Start = Callable[[Bucket, Path], AbstractContextManager[Peer]]


def starts(workers: int = 1) -> dict[str, Start | None]:
    """Give how to start each peer, None for those not installed; with a second Framegate if `workers` > 1."""
    rclone = find_program("rclone")
    found: dict[str, Start | None] = {
        BUCKET: the_bucket_itself,
        NGINX: partial(nginx, buffers=_LARGE_BUFFERS),
        STOCK_NGINX: partial(nginx, name=STOCK_NGINX),
        REFERENCE: reference,
        FRAMEGATE: framegate,
        WARM_FRAMEGATE: partial(framegate, name=WARM_FRAMEGATE, cache_bytes=HOT_BYTES),
    }
    if workers > 1:
        name = f"{FRAMEGATE}, {workers} workers"
        found[name] = partial(framegate, name=name, workers=workers)
    return {**found, RCLONE: partial(rclone_http, rclone) if rclone else None}


@contextmanager
def the_bucket_itself(bucket: Bucket, _folder: Path) -> Iterator[Peer]:
    """Ask the bucket directly: what nobody in between can surpass."""
    yield Peer(BUCKET, f"{bucket.endpoint_url}/{NAME}/", bucket.process, ca_file=bucket.ca_file)


@contextmanager
def nginx(bucket: Bucket, folder: Path, name: str = NGINX, buffers: str = "") -> Iterator[Peer]:
    """Pass requests on in C, with one worker: what a proxy without any check costs."""
    port = free_port()
    scheme, _, address = bucket.endpoint_url.partition("://")
    if bucket.ca_file is not None:
        buffers += _VERIFYING.format(ca=bucket.ca_file, name=SERVER_NAME)
    server = _PROXY.format(port=port, scheme=scheme, bucket=address, name=NAME, settings=buffers)
    with start_nginx(f"proxy-{port}", folder, port, server) as process:
        yield Peer(name, f"http://{LOOPBACK}:{port}/", process)


_LARGE_BUFFERS = """
            proxy_buffering off;
            proxy_buffer_size 256k;
            proxy_buffers 4 256k;
            proxy_busy_buffers_size 256k;
"""
"""The fastest that was found for pictures and large objects; nginx's own of 4 KiB cost it half its speed."""

_VERIFYING = """
            proxy_ssl_verify on;
            proxy_ssl_trusted_certificate {ca};
            proxy_ssl_name {name};
            proxy_ssl_server_name on;
            proxy_ssl_protocols TLSv1.2 TLSv1.3;
"""
"""As Framegate does: the certificate is checked, the connection kept."""

_PROXY = """
    upstream bucket {{
        server {bucket};
        keepalive 64;
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        location / {{
            proxy_pass {scheme}://bucket/{name}/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_max_temp_file_size 0;
            {settings}
        }}
    }}
"""


@contextmanager
def reference(bucket: Bucket, folder: Path) -> Iterator[Peer]:
    """Start the plain way, `bench/reference.py`."""
    port = free_port()
    command = [PYTHON, "-m", "uvicorn", "--factory", "bench.reference:create_app", "--host", LOOPBACK]
    command += ["--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    environment = {
        "BENCH_ENDPOINT_URL": bucket.endpoint_url,
        "BENCH_BUCKET": NAME,
        "BENCH_REGION": REGION,
    }
    with running("reference", command, folder, port, environment=environment) as process:
        yield Peer(REFERENCE, f"http://{LOOPBACK}:{port}/objects/", process)


@contextmanager
def rclone_http(program: str, bucket: Bucket, folder: Path) -> Iterator[Peer]:
    """Start `rclone serve http`, which reads the bucket through its S3 backend."""
    port = free_port()
    remote = f':s3,provider=Other,env_auth=false,endpoint="{bucket.endpoint_url}":{NAME}'
    command = [program, "serve", "http", remote, "--addr", f"{LOOPBACK}:{port}", "--config", ""]
    command += [
        "--read-only",
        "--no-modtime",
        "--s3-access-key-id",
        "bench",
        "--s3-secret-access-key",
        "bench",
    ]
    with running("rclone", command, folder, port) as process:
        yield Peer(RCLONE, f"http://{LOOPBACK}:{port}/", process)


@contextmanager
def framegate(
    bucket: Bucket, folder: Path, name: str = FRAMEGATE, workers: int = 1, **settings: object
) -> Iterator[Peer]:
    """Start Framegate; see `bench/service.py`."""
    with service(bucket, folder, workers, **settings) as one:
        yield Peer(name, one.objects, one.process, one.headers)
