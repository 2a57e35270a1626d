"""The rows of reads under load: pictures cold and warm, a large object, TLS, latency, two workers."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from statistics import median

from bench.bucket import bucket, picture
from bench.peers import BUCKET, FRAMEGATE, NGINX, RCLONE, REFERENCE, WARM_FRAMEGATE, Peer, starts
from bench.place import LARGE, LARGE_CONNECTIONS, PICTURE, PICTURE_CONNECTIONS, Place
from bench.table import Line
from bench.tls import certificate
from bench.turns import Row, Run, Work, check, in_turns, speed_ratio, spread

TWO_WORKERS = f"{FRAMEGATE}, 2 workers"
AT_THE_LIMIT = 0.95
"""So near the bucket's own speed, a peer cannot be surpassed by a factor any more."""
MOST_ADDED_MS = {"p50": 1.0, "p99": 3.0}
MOST_FOR_TWO_WORKERS = 1.15


def cold(place: Place) -> list[Line]:
    """Read pictures that are not in memory, as every peer does."""
    rows = _rows(place, _pictures("195 KB cold"), (BUCKET, NGINX, REFERENCE, FRAMEGATE, RCLONE))
    ours = rows[FRAMEGATE]
    lines = [
        _line(ours),
        _beside(ours, rows[REFERENCE], 8),
        _beside(ours, rows[NGINX], 0.55),
        _line(rows[BUCKET]),
    ]
    if not rows[RCLONE].runs:
        return [*lines, Line(f"{RCLONE} (not installed)")]
    at_the_limit = speed_ratio(ours, rows[BUCKET]) >= AT_THE_LIMIT
    return [*lines, _beside(ours, rows[RCLONE], 2, otherwise=at_the_limit)]


def warm(place: Place) -> list[Line]:
    """Read a picture that lies in memory."""
    rows = _rows(place, _pictures("195 KB warm"), (NGINX, WARM_FRAMEGATE))
    return [_line(rows[WARM_FRAMEGATE]), _beside(rows[WARM_FRAMEGATE], rows[NGINX], 1.2)]


def large(place: Place) -> list[Line]:
    """Read an object that nobody keeps in memory."""
    work = Work("large object", LARGE, LARGE_CONNECTIONS, whole_objects=False)
    rows = _rows(place, work, (BUCKET, NGINX, FRAMEGATE))
    ours = rows[FRAMEGATE]
    return [
        _line(ours, whole_objects=False),
        _beside(ours, rows[NGINX], 0.8, whole_objects=False),
        _line(rows[BUCKET], whole_objects=False),
    ]


def tls(place: Place) -> list[Line]:
    """Read pictures out of a bucket behind TLS, its certificate checked and connections kept."""
    folder = place.folder / "tls"
    folder.mkdir()
    with bucket(folder, {PICTURE: picture()}, certificate(folder)) as secure:
        rows = _rows(Place(secure, place.turns), _pictures("195 KB TLS"), (BUCKET, NGINX, FRAMEGATE))
    return [
        _line(rows[FRAMEGATE]),
        _beside(rows[FRAMEGATE], rows[NGINX], 0.5),
        _line(rows[BUCKET]),
    ]


def latency(place: Place) -> list[Line]:
    """Read one picture after another, and see what that takes longer than from the bucket itself."""
    rows = _rows(place, Work("latency", PICTURE, connections=1), (BUCKET, NGINX, FRAMEGATE))
    added = [_added(rows[FRAMEGATE], rows[BUCKET], name, most) for name, most in MOST_ADDED_MS.items()]
    return [
        _times(rows[FRAMEGATE]),
        *added,
        _times(rows[BUCKET]),
        _times(rows[NGINX]),
    ]


def two_workers(place: Place) -> list[Line]:
    """Read pictures through two processes, which must not cost more than one."""
    rows = _rows(place, _pictures("two workers"), (FRAMEGATE, TWO_WORKERS))
    one, two = rows[FRAMEGATE], rows[TWO_WORKERS]
    ratio = median(second.cpu_ms / first.cpu_ms for first, second in zip(one.runs, two.runs, strict=True))
    line = _line(
        two,
        beside=f"{ratio:.2f} x CPU-ms",
        must=f"<= {MOST_FOR_TWO_WORKERS:g}",
        reached=ratio <= MOST_FOR_TWO_WORKERS,
    )
    return [_line(one), line]


def _pictures(title: str) -> Work:
    return Work(title, PICTURE, PICTURE_CONNECTIONS)


def _rows(place: Place, work: Work, names: Iterable[str]) -> dict[str, Row]:
    """Start the peers, see that their bytes are right, and let them work in turns."""
    rows = {name: Row(name) for name in names}
    with ExitStack() as stack:
        running: list[Peer] = []
        for name in rows:
            if (start := starts(workers=2)[name]) is not None:
                running.append(stack.enter_context(start(place.bucket, place.folder)))
                check(running[-1], place.bucket, work.key)
        return rows | {row.name: row for row in in_turns(running, work, place.turns)}


def _line(
    row: Row, *, whole_objects: bool = True, beside: str = "", must: str = "", reached: bool | None = None
) -> Line:
    figure, cpu_ms = _figures(row.runs) if whole_objects else _large_figures(row.runs)
    return Line(row.name, figure, beside, must, reached, cpu_ms, row.peak_bytes, row.failed)


def _beside(
    ours: Row, other: Row, least: float, *, whole_objects: bool = True, otherwise: bool = False
) -> Line:
    ratio = speed_ratio(ours, other)
    return _line(
        other,
        whole_objects=whole_objects,
        beside=f"{ratio:.2f} x",
        must=f">= {least:g}",
        reached=ratio >= least or otherwise,
    )


def _figures(runs: list[Run]) -> tuple[str, str]:
    per_s = spread([run.per_s for run in runs], ",.0f")
    return f"{per_s} req/s", f"{median(run.cpu_ms for run in runs):.3f}"


def _large_figures(runs: list[Run]) -> tuple[str, str]:
    mb_per_s = spread([run.mb_per_s for run in runs], ",.0f")
    return f"{mb_per_s} MB/s", f"{median(run.cpu_ms_per_mb for run in runs):.3f} a MB"


_QUANTILES: dict[str, Callable[[Run], float]] = {
    "p50": lambda run: run.load.p50_ms,
    "p99": lambda run: run.load.p99_ms,
}


def _times(row: Row) -> Line:
    figure = ", ".join(
        f"{name} {median(map(quantile, row.runs)):.2f}" for name, quantile in _QUANTILES.items()
    )
    cpu_ms = f"{median(run.cpu_ms for run in row.runs):.3f}"
    return Line(row.name, f"{figure} ms", cpu_ms=cpu_ms, peak_bytes=row.peak_bytes, failed=row.failed)


def _added(ours: Row, bucket_row: Row, name: str, most_ms: float) -> Line:
    quantile = _QUANTILES[name]
    pairs = zip(ours.runs, bucket_row.runs, strict=True)
    added_ms = median(quantile(one) - quantile(other) for one, other in pairs)
    return Line(
        f"added, {name}", f"{added_ms:+.2f} ms", must=f"<= {most_ms:.1f} ms", reached=added_ms <= most_ms
    )
