"""The row of smaller pictures: made by one process out of 12 megapixels, and served again from memory."""

import io
import random
import time
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from bench.peers import Peer
from bench.place import PICTURE_CONNECTIONS, Place
from bench.service import HOT_BYTES, Service, service
from bench.table import Line, NotMeasuredError
from bench.turns import Row, Work, in_turns, speed_ratio, spread

SIZE_PX = 256
WIDTH_PX, HEIGHT_PX = 4000, 3000
MADE, QUICK_MADE = 48, 8
ASKING = 4
"""Clients that ask for pictures at a time: enough to keep one process at work."""
LEAST_PER_S = 12
AS_FAST = 0.9
"""Of a hot object's speed; two runs of the same object differ by as much."""


def thumbnails(place: Place) -> list[Line]:
    """Ask for pictures that were never asked for, under keys of their own; then for one of them, again and again."""
    count = QUICK_MADE if place.quick else MADE
    keys = [f"photo-{number:03}.jpg" for number in range(count)]
    place.bucket.put("photo.jpg", photo())
    place.bucket.copy("photo.jpg", *keys)
    with service(place.bucket, place.folder, rendition_workers=1, cache_bytes=HOT_BYTES) as one:
        thumbnail = _first(one)
        made = _made(one, keys)
        place.bucket.put("thumbnail.jpg", thumbnail)
        hot, again = in_turns(
            [Peer("hot object", f"{one.objects}thumbnail.jpg", one.process, one.headers), _again(one)],
            Work("warm thumbnails", "", PICTURE_CONNECTIONS),
            place.turns,
        )
    ratio = speed_ratio(again, hot)
    return [made, _line(again, f"{ratio:.2f} x", f">= {AS_FAST:g}", ratio >= AS_FAST), _line(hot)]


def photo() -> bytes:
    """Draw a JPEG of 12 megapixels, as soft and as large as a camera's."""
    noise = Image.frombytes("RGB", (500, 375), random.Random(12).randbytes(500 * 375 * 3))
    target = io.BytesIO()
    noise.resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.BICUBIC).save(target, "JPEG", quality=90)
    return target.getvalue()


def _smaller(key: str) -> str:
    return f"{key}?width={SIZE_PX}"


def _again(one: Service) -> Peer:
    url = f"{one.objects}{_smaller('photo.jpg')}"
    return Peer("the same one again, warm", url, one.process, one.headers)


def _first(one: Service) -> bytes:
    """Get the first one, which starts the process that makes them; raises `NotMeasuredError`."""
    status, body = _get(one, "photo.jpg")
    if status != 200:
        raise NotMeasuredError(f"the service answers {status} to ?width=")
    with Image.open(io.BytesIO(body)) as image:
        if max(image.size) > SIZE_PX:
            raise NotMeasuredError("the service gives the whole picture to ?width=")
    return body


def _made(one: Service, keys: list[str]) -> Line:
    cpu_s, began = one.process.cpu_s(), time.perf_counter()
    with ThreadPoolExecutor(ASKING) as clients:
        statuses = list(clients.map(lambda key: _get(one, key)[0], keys))
    per_s = len(keys) / (time.perf_counter() - began)
    cpu_ms = (one.process.cpu_s() - cpu_s) * 1000 / len(keys)
    return Line(
        "Framegate, one process",
        f"{per_s:.1f} a second",
        must=f">= {LEAST_PER_S}",
        reached=per_s >= LEAST_PER_S,
        cpu_ms=f"{cpu_ms:.1f}",
        peak_bytes=one.process.peak_memory_bytes(),
        failed=sum(status != 200 for status in statuses),
    )


def _get(one: Service, key: str) -> tuple[int, bytes]:
    return one.ask("GET", f"{one.objects.removeprefix(one.base)}{_smaller(key)}")


def _line(row: Row, beside: str = "", must: str = "", reached: bool | None = None) -> Line:
    per_s = spread([run.per_s for run in row.runs], ",.0f")
    cpu_ms = spread([run.cpu_ms for run in row.runs], ".3f").split(" ")[0]
    return Line(row.name, f"{per_s} req/s", beside, must, reached, cpu_ms, row.peak_bytes, row.failed)
