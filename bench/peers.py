"""What is compared: each peer serves the same bucket in a process of its own, and is asked by URL."""

import json
import os
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.bucket import NAME, REGION, Bucket
from bench.nginx import start_nginx
from bench.processes import LOOPBACK, PYTHON, ROOT, Running, find_program, free_port, running

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

    def fetch(self, key: str) -> bytes:
        """Get an object whole; raises `OSError` for any answer but 200."""
        request = urllib.request.Request(self.url + key, headers=dict(self.headers))
        with urllib.request.urlopen(request, timeout=60) as answer:
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
        WARM_FRAMEGATE: partial(framegate, name=WARM_FRAMEGATE, cache_bytes=2**28),
    }
    if workers > 1:
        name = f"{FRAMEGATE}, {workers} workers"
        found[name] = partial(framegate, name=name, workers=workers)
    return {**found, RCLONE: partial(rclone_http, rclone) if rclone else None}


@contextmanager
def the_bucket_itself(bucket: Bucket, _folder: Path) -> Iterator[Peer]:
    """Ask the bucket directly: what nobody in between can surpass."""
    yield Peer(BUCKET, f"{bucket.endpoint_url}/{NAME}/", bucket.process)


@contextmanager
def nginx(bucket: Bucket, folder: Path, name: str = NGINX, buffers: str = "") -> Iterator[Peer]:
    """Pass requests on in C, with one worker: what a proxy without any check costs."""
    port = free_port()
    address = bucket.endpoint_url.removeprefix("http://")
    server = _PROXY.format(port=port, bucket=address, name=NAME, buffers=buffers)
    with start_nginx(f"proxy-{port}", folder, port, server) as process:
        yield Peer(name, f"http://{LOOPBACK}:{port}/", process)


_LARGE_BUFFERS = """
            proxy_buffering off;
            proxy_buffer_size 256k;
            proxy_buffers 4 256k;
            proxy_busy_buffers_size 256k;
"""
"""The fastest that was found for pictures and large objects; nginx's own of 4 KiB cost it half its speed."""


_PROXY = """
    upstream bucket {{
        server {bucket};
        keepalive 64;
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        location / {{
            proxy_pass http://bucket/{name}/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_max_temp_file_size 0;
            {buffers}
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
    bucket: Bucket, folder: Path, name: str = FRAMEGATE, workers: int = 1, cache_bytes: int = 0
) -> Iterator[Peer]:
    """Start `framegate serve` on an embedded PostgreSQL, and attach the bucket through its API.

    Each request carries a token, and is checked for permission. Nothing is cached, unless asked for.
    """
    data = folder / f"framegate-{workers}-{cache_bytes}"
    data.mkdir(mode=0o700)
    port = free_port()
    environment = {
        "FRAMEGATE_DATA_DIR": str(data),
        "FRAMEGATE_ALLOWED_PRIVATE_ENDPOINTS": bucket.endpoint_url.removeprefix("http://"),
        "FRAMEGATE_CACHE_BYTES": str(cache_bytes),
        "FRAMEGATE_LOG_FORMAT": "json",
    }
    base = f"http://{LOOPBACK}:{port}"
    serve = [PYTHON, "-c", _COMMAND, "serve", "--port", str(port), "--workers", str(workers)]
    # PostgreSQL is a child of the service, but its memory is not the service's.
    with running(
        data.name,
        serve,
        folder,
        port,
        environment=environment,
        ready=partial(_answers, f"{base}/readyz"),
        not_counted=frozenset({"postgres"}),
    ) as process:
        headers = {"Authorization": f"Bearer {_token(environment, folder)}"}
        storage_id = _attach(base, headers, bucket)
        yield Peer(name, f"{base}/v1/storages/{storage_id}/objects/", process, headers)


_COMMAND = "from app.cli import main; main()"
"""The `framegate` command; named by module, so that a checkout measures its own code."""


def _token(environment: Mapping[str, str], folder: Path) -> str:
    said = subprocess.run(
        [PYTHON, "-c", _COMMAND, "token", "create", "--name", "bench"],
        cwd=folder,
        env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return said.stdout.strip()


def _attach(base: str, headers: Mapping[str, str], bucket: Bucket) -> int:
    auth = {"type": "key_pair", "access_key_id": "BENCHBENCHBENCHBENCH", "secret_access_key": "b" * 40}
    source = {
        "provider": "s3",
        "bucket": NAME,
        "region": REGION,
        "endpoint_url": bucket.endpoint_url,
        "auth": auth,
    }
    body = json.dumps({"display_name": "bench", "source": source}).encode()
    request = urllib.request.Request(
        f"{base}/v1/storages", data=body, headers={**headers, "Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        attached: dict[str, Any] = json.load(answer)
    return int(attached["id"])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
