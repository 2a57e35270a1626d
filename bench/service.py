"""One `framegate serve` on an embedded PostgreSQL of its own, with the bucket attached through its API."""

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.bucket import NAME, REGION, Bucket
from bench.processes import LOOPBACK, PYTHON, ROOT, Running, free_port, running

HOT_BYTES = 2**28
"""Memory for hot objects, where a row is about it; all others do without."""
_COMMAND = "from app.cli import main; main()"
"""The `framegate` command; named by module, so that a checkout measures its own code."""


@dataclass(frozen=True, slots=True)
class Service:
    """A running service, a token for it, and the storage that the bucket became."""

    base: str
    headers: Mapping[str, str]
    process: Running
    storage_id: int = 0

    @property
    def objects(self) -> str:
        """The address that keys are put behind."""
        return f"{self.base}/v1/storages/{self.storage_id}/objects/"

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        """Ask for a path with the token; gives status and body of whatever is answered."""
        data = None if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(
            self.base + path,
            data=data,
            headers={**self.headers, "Content-Type": "application/json", **named},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


@contextmanager
def service(bucket: Bucket, folder: Path, workers: int = 1, **settings: object) -> Iterator[Service]:
    """Run one until the block ends; `settings` as in `docs/settings.md`, without prefix and in lower case.

    Every request carries a token and is checked for permission. Nothing is cached, unless a setting says so.
    """
    port = free_port()
    data = folder / f"framegate-{port}"
    data.mkdir(mode=0o700)
    given: dict[str, object] = {
        "data_dir": data,
        "allowed_private_endpoints": bucket.endpoint_url.partition("://")[2],
        "cache_bytes": 0,
        "log_format": "json",
        **settings,
    }
    if bucket.ca_file is not None:
        given["ca_file"] = bucket.ca_file
    environment = {f"FRAMEGATE_{name.upper()}": str(value) for name, value in given.items()}
    base = f"http://{LOOPBACK}:{port}"
    serve = [PYTHON, "-c", _COMMAND, "serve", "--port", str(port), "--workers", str(workers)]
    with running(
        data.name,
        serve,
        folder,
        port,
        environment=environment,
        ready=partial(_answers, f"{base}/readyz"),
        # PostgreSQL is a child of the service, but its memory is not the service's.
        not_counted=frozenset({"postgres"}),
    ) as process:
        headers = {"Authorization": f"Bearer {_token(environment, folder)}"}
        one = Service(base, headers, process)
        yield Service(base, headers, process, _attach(one, bucket))


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


def _attach(one: Service, bucket: Bucket) -> int:
    auth = {"type": "key_pair", "access_key_id": "BENCHBENCHBENCHBENCH", "secret_access_key": "b" * 40}
    place = {"bucket": NAME, "region": REGION, "endpoint_url": bucket.endpoint_url}
    source = {"provider": "s3", **place, "auth": auth}
    status, body = one.ask("POST", "/v1/storages", {"display_name": "bench", "source": source})
    if status != 201:
        raise RuntimeError(f"the bucket could not be attached: {status} {body.decode(errors='replace')}")
    return int(json.loads(body)["id"])


def _answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
        return bool(answer.status == 200)
    return False
