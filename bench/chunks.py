"""The row of chunks: 36 frames as one ZIP beside 36 requests, each over one kept connection, in turns."""

import io
import json
import time
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from statistics import mean, median
from urllib.parse import urlsplit

from app.manifests.writer import Picture, write_images
from bench.place import PICTURE, Place
from bench.service import Service, service
from bench.table import Line, NotMeasuredError
from bench.turns import spread

FRAMES = 36
TURNS_A_ROUND = 8
MANIFEST = "manifest.jsonl"
_WAIT_S = 30
_PIECE_BYTES = 256 * 1024


@dataclass(slots=True)
class _Way:
    """One way to get the frames: what it asks for, and what each turn took."""

    who: str
    paths: Sequence[str]
    taken_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)


def chunks(place: Place) -> list[Line]:
    """Register a manifest of so many pictures, and get them both ways; nothing lies in memory."""
    names = [f"frame-{number:03}" for number in range(FRAMES)]
    place.bucket.copy(PICTURE, *(f"{name}.jpg" for name in names))
    place.bucket.put(MANIFEST, b"".join(write_images(Picture(name, ".jpg", 640, 480) for name in names)))
    with service(place.bucket, place.folder) as one:
        manifest = f"/v1/manifests/{_registered(one)}"
        together = _Way("Framegate, one chunk", [f"{manifest}/chunks/0?size={FRAMES}"])
        apart = _Way(
            f"Framegate, {FRAMES} single requests",
            [f"{manifest}/frames/{number}/image" for number in range(FRAMES)],
        )
        _check(one, together.paths[0], place.bucket.body(PICTURE))
        _in_turns(one, (together, apart), TURNS_A_ROUND * place.turns.rounds)
        peak = one.process.peak_memory_bytes()
    ratio = median(slow / fast for fast, slow in zip(together.taken_ms, apart.taken_ms, strict=True))
    return [
        _line(together, peak_bytes=peak),
        _line(apart, beside=f"{ratio:.2f} x", must="> 1", reached=ratio > 1),
    ]


def _registered(one: Service) -> int:
    path = f"/v1/storages/{one.storage_id}/manifests"
    status, body = one.ask("POST", path, {"key": MANIFEST}, Prefer=f"wait={_WAIT_S}")
    manifest = json.loads(body)["manifest"] if status in {200, 201, 202} else {}
    if manifest.get("state") != "ready":
        raise RuntimeError(f"the manifest is not ready: {status} {body.decode(errors='replace')[:300]}")
    return int(manifest["id"])


def _check(one: Service, chunk: str, picture: bytes) -> None:
    status, body = one.ask("GET", chunk)
    if status == 404:
        raise NotMeasuredError("the service has no chunks")
    if status != 200:
        raise RuntimeError(f"a chunk was answered {status}")
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        if [archive.read(name) for name in archive.namelist()] != [picture] * FRAMES:
            raise RuntimeError("the chunk does not hold the bucket's bytes")


def _in_turns(one: Service, ways: Sequence[_Way], turns: int) -> None:
    """Let each way have its turns over a connection of its own, after one that is not counted."""
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(HTTPConnection(urlsplit(one.base).netloc))) for _ in ways]
        for turn in range(turns + 1):
            for way, connection in zip(ways, connections, strict=True):
                began, cpu_s = time.perf_counter(), one.process.cpu_s()
                _get(connection, one, way.paths)
                if turn:
                    way.taken_ms.append((time.perf_counter() - began) * 1000)
                    way.cpu_ms.append((one.process.cpu_s() - cpu_s) * 1000)


def _get(connection: HTTPConnection, one: Service, paths: Sequence[str]) -> None:
    for path in paths:
        connection.request("GET", path, headers=dict(one.headers))
        with connection.getresponse() as answer:
            while answer.read(_PIECE_BYTES):
                pass
            if answer.status != 200:
                raise RuntimeError(f"{path} was answered {answer.status}")


def _line(
    way: _Way, beside: str = "", must: str = "", reached: bool | None = None, peak_bytes: int = 0
) -> Line:
    figure = f"{spread(way.taken_ms, '.1f')} ms"
    return Line(way.who, figure, beside, must, reached, f"{mean(way.cpu_ms):.1f}", peak_bytes)
