"""Reads through Framegate beside its peers, in turns: `python -m bench.read_path`; see docs/performance.md."""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench.bucket import MIB, PICTURE_BYTES, Bucket, bucket, large_object, picture
from bench.machine import Neighbours, machine
from bench.peers import NGINX, REFERENCE, Peer, starts
from bench.processes import find_program, stopped_by_signals
from bench.turns import Row, Run, Turns, Work, check, in_turns, speed_ratio, spread

LARGE_MIB = 256


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when nothing could be measured or an answer was wrong."""
    options = _options(arguments)
    missing = [name for name in ("nginx", "wrk") if find_program(name) is None]
    if missing:
        print(f"not measured: {' and '.join(missing)} not installed (Debian: nginx-light, wrk)")
        return 1
    print(machine(), flush=True)
    work, body = _work(options)
    with stopped_by_signals(), tempfile.TemporaryDirectory(prefix="framegate-bench-") as name:
        rows = _measure(work, body, options, Path(name))
    _print(work, rows, options)
    return 1 if any(row.failed for row in rows) else 0


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


def _work(options: argparse.Namespace) -> tuple[Work, Callable[[], bytes]]:
    if options.large:
        title, connections = f"{LARGE_MIB} MiB object", options.connections or 2
        work = Work(title, "large.bin", connections, whole_objects=False)
        return work, lambda: large_object(LARGE_MIB)
    return Work(f"{PICTURE_BYTES // 1000} KB JPEG", "picture.jpg", options.connections or 16), picture


def _measure(work: Work, body: Callable[[], bytes], options: argparse.Namespace, folder: Path) -> list[Row]:
    with ExitStack() as stack:
        served = stack.enter_context(bucket(folder, {work.key: body()}))
        peers = dict(_started(stack, served, folder, options))
        running = [peer for peer in peers.values() if peer is not None]
        for peer in running:
            check(peer, served, work.key)
        neighbours = Neighbours()
        rows = {
            row.name: row for row in in_turns(running, work, Turns(options.rounds, options.seconds, folder))
        }
        print(neighbours, flush=True)
    return [rows.get(name) or Row(name) for name in peers]


def _started(
    stack: ExitStack, served: Bucket, folder: Path, options: argparse.Namespace
) -> Iterator[tuple[str, Peer | None]]:
    wanted = tuple(part for part in options.only.split(",") if part) or ("",)
    for name, start in starts(options.workers).items():
        if name.startswith(wanted):
            yield name, None if start is None else stack.enter_context(start(served, folder))


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
        str(row.failed),
    ]


def _picture_cells(runs: list[Run]) -> list[str]:
    return [
        spread([run.per_s for run in runs], ",.0f"),
        spread([run.cpu_ms for run in runs], ".3f"),
        f"{median(run.mb_per_s for run in runs):,.0f}",
        f"{median(run.load.p50_ms for run in runs):.2f}",
        f"{median(run.load.p99_ms for run in runs):.2f}",
    ]


def _large_cells(runs: list[Run]) -> list[str]:
    return [
        spread([run.mb_per_s for run in runs], ",.0f"),
        spread([run.cpu_ms_per_mb for run in runs], ".3f"),
    ]


def _ratio(row: Row, other: Row | None) -> str:
    if other is None or not other.runs or other is row:
        return ""
    return f"{speed_ratio(row, other):.2f}"


if __name__ == "__main__":
    sys.exit(main())
