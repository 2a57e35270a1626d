"""Reads through Framegate beside its peers, in turns: `python -m bench.read_path`; see docs/performance.md."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.bucket import MIB, PICTURE_BYTES, Bucket, bucket, large_object, picture
from bench.load import Load, run_wrk
from bench.machine import Neighbours, machine
from bench.peers import NGINX, REFERENCE, Peer, starts
from bench.processes import find_program, stopped_by_signals

LARGE_MIB = 256


@dataclass(frozen=True, slots=True)
class Work:
    """What is asked of every peer."""

    title: str
    key: str
    body: Callable[[], bytes]
    connections: int
    whole_objects: bool = True
    """Whether a run sees enough whole objects to count them; else bytes alone are counted."""


@dataclass(frozen=True, slots=True)
class Run:
    """One turn of one peer."""

    load: Load
    cpu_s: float

    @property
    def per_s(self) -> float:
        """Requests answered a second."""
        return self.load.requests / self.load.seconds

    @property
    def mb_per_s(self) -> float:
        """Megabytes (10^6) received a second."""
        return self.load.received_bytes / self.load.seconds / 1e6

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds of the peer's processes for one request."""
        return self.cpu_s * 1000 / max(1, self.load.requests)

    @property
    def cpu_ms_per_mb(self) -> float:
        """CPU milliseconds of the peer's processes for one megabyte."""
        return self.cpu_s * 1e9 / max(1, self.load.received_bytes)


@dataclass(slots=True)
class Row:
    """One peer's runs; no runs where it is not installed."""

    name: str
    runs: list[Run] = field(default_factory=list)
    peak_bytes: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when nothing could be measured or an answer was wrong."""
    options = _options(arguments)
    missing = [name for name in ("nginx", "wrk") if find_program(name) is None]
    if missing:
        print(f"not measured: {' and '.join(missing)} not installed (Debian: nginx-light, wrk)")
        return 1
    print(machine(), flush=True)
    work = _work(options)
    with stopped_by_signals(), tempfile.TemporaryDirectory(prefix="framegate-bench-") as name:
        rows = _measure(work, options, Path(name))
    _print(work, rows, options)
    return 1 if any(run.load.failed for row in rows for run in row.runs) else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.read_path", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="turns that each peer gets")
    parser.add_argument("--seconds", type=int, default=5, help="how long a turn takes")
    parser.add_argument("--connections", type=int, help="of the load; 16, with --large 2")
    parser.add_argument("--large", action="store_true", help=f"read an object of {LARGE_MIB} MiB")
    parser.add_argument(
        "--workers", type=int, default=1, help="also measure Framegate with so many processes"
    )
    parser.add_argument(
        "--only", default="", help="comma list: peers whose names begin so, such as `nginx,F`"
    )
    return parser.parse_args(arguments)


def _work(options: argparse.Namespace) -> Work:
    if options.large:
        return Work(
            f"{LARGE_MIB} MiB object",
            "large.bin",
            lambda: large_object(LARGE_MIB),
            options.connections or 2,
            whole_objects=False,
        )
    return Work(f"{PICTURE_BYTES // 1000} KB JPEG", "picture.jpg", picture, options.connections or 16)


def _measure(work: Work, options: argparse.Namespace, folder: Path) -> list[Row]:
    with ExitStack() as stack:
        served = stack.enter_context(bucket(folder, {work.key: work.body()}))
        peers = list(_started(stack, served, folder, options))
        rows = {name: Row(name) for name, _ in peers}
        running = [peer for _, peer in peers if peer is not None]
        for peer in running:
            _check(peer, served, work)
            _turn(peer, work, 1, folder)  # warms connections and caches up; not counted
            peer.process.forget_peak()
        neighbours = Neighbours()
        for number in range(options.rounds):
            for peer in running:
                rows[peer.name].runs.append(_turn(peer, work, options.seconds, folder))
            print(f"round {number + 1} of {options.rounds} done", file=sys.stderr, flush=True)
        print(neighbours, flush=True)
        for peer in running:
            rows[peer.name].peak_bytes = peer.process.peak_memory_bytes()
    return list(rows.values())


def _started(
    stack: ExitStack, served: Bucket, folder: Path, options: argparse.Namespace
) -> Iterator[tuple[str, Peer | None]]:
    wanted = tuple(part for part in options.only.split(",") if part) or ("",)
    for name, start in starts(options.workers).items():
        if name.startswith(wanted):
            yield name, None if start is None else stack.enter_context(start(served, folder))


def _check(peer: Peer, served: Bucket, work: Work) -> None:
    if peer.fetch(work.key) != served.body(work.key):
        raise SystemExit(f"{peer.name} does not serve the bucket's bytes")


def _turn(peer: Peer, work: Work, seconds: int, folder: Path) -> Run:
    before = peer.process.cpu_s()
    load = run_wrk(
        peer.url + work.key, peer.headers, connections=work.connections, seconds=seconds, folder=folder
    )
    return Run(load, peer.process.cpu_s() - before)


def _print(work: Work, rows: list[Row], options: argparse.Namespace) -> None:
    print(
        f"{work.title}, {work.connections} connections, {options.rounds} rounds of {options.seconds} s in turns;"
        " medians (lowest-highest), ratios are medians of the rounds' own"
    )
    by_name = {row.name: row for row in rows}
    table = [_heads(work), *(_cells(work, row, by_name) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        print("  ".join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]).rstrip())


def _heads(work: Work) -> list[str]:
    each = ["req/s", "CPU-ms", "MB/s", "p50 ms", "p99 ms"] if work.whole_objects else ["MB/s", "CPU-ms/MB"]
    return ["", *each, "peak MiB", "x plain", "x nginx", "failed"]


def _cells(work: Work, row: Row, rows: dict[str, Row]) -> list[str]:
    if not row.runs:
        return [row.name, "not measured", *[""] * (len(_heads(work)) - 2)]
    return [
        row.name,
        *(_picture_cells(row.runs) if work.whole_objects else _large_cells(row.runs)),
        f"{row.peak_bytes / MIB:.0f}",
        _ratio(row, rows.get(REFERENCE)),
        _ratio(row, rows.get(NGINX)),
        str(sum(run.load.failed for run in row.runs)),
    ]


def _picture_cells(runs: list[Run]) -> list[str]:
    return [
        _spread([run.per_s for run in runs], ",.0f"),
        _spread([run.cpu_ms for run in runs], ".3f"),
        f"{median(run.mb_per_s for run in runs):,.0f}",
        f"{median(run.load.p50_ms for run in runs):.2f}",
        f"{median(run.load.p99_ms for run in runs):.2f}",
    ]


def _large_cells(runs: list[Run]) -> list[str]:
    return [
        _spread([run.mb_per_s for run in runs], ",.0f"),
        _spread([run.cpu_ms_per_mb for run in runs], ".3f"),
    ]


def _spread(values: list[float], form: str) -> str:
    return f"{median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def _ratio(row: Row, other: Row | None) -> str:
    """Compare within each round: what disturbs the machine then disturbs both."""
    if other is None or not other.runs or other is row:
        return ""
    pairs = zip(row.runs, other.runs, strict=True)
    return f"{median(one.mb_per_s / two.mb_per_s for one, two in pairs if two.mb_per_s):.2f}"


if __name__ == "__main__":
    sys.exit(main())
