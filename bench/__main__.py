"""Every row of `docs/performance.md` in one run and one table: `python -m bench`."""

import argparse
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from bench import reads
from bench.bucket import bucket, large_object, picture
from bench.chunks import chunks
from bench.machine import Neighbours, machine
from bench.place import LARGE, PICTURE, Measure, Place
from bench.processes import find_program, stopped_by_signals
from bench.slow_readers import slow_readers
from bench.table import NotMeasuredError, Result, not_measured, text_of
from bench.thumbnails import thumbnails
from bench.turns import Turns

LARGE_MIB, QUICK_LARGE_MIB = 256, 32
ROWS = {
    "cold": Measure("195 KB JPEG, 16 connections, no memory", reads.cold),
    "warm": Measure("the same, from memory", reads.warm),
    "large": Measure("256 MiB object, 2 connections", reads.large),
    "tls": Measure("195 KB JPEG, 16 connections, bucket over TLS", reads.tls),
    "latency": Measure("195 KB JPEG, 1 connection", reads.latency),
    "slow": Measure("slow readers of 195 KB at once", slow_readers),
    "workers": Measure("195 KB JPEG, 16 connections, 2 workers", reads.two_workers),
    "thumbnails": Measure("256 px of 12 megapixels", thumbnails),
    "chunk": Measure("36 frames of 195 KB", chunks),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 unless every row was measured and reached what it must."""
    options = _options(arguments)
    missing = [name for name in ("nginx", "wrk") if find_program(name) is None]
    if missing:
        print(f"not measured: {' and '.join(missing)} not installed (Debian: nginx-light, wrk)")
        return 1
    with stopped_by_signals(), tempfile.TemporaryDirectory(prefix="framegate-bench-") as folder:
        results = _measured(options, Path(folder))
    return 0 if all(result.good for result in results) else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", default="", help=f"comma list of rows: {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, help="turns that each peer gets in a row (3)")
    parser.add_argument("--seconds", type=int, help="how long a turn takes (4)")
    parser.add_argument("--quick", action="store_true", help="little of everything: to see that it runs")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (1 if options.quick else 4)
    options.only = [name for name in options.only.split(",") if name] or list(ROWS)
    if unknown := set(options.only) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    return options


def _measured(options: argparse.Namespace, folder: Path) -> list[Result]:
    before, neighbours = machine(), Neighbours()
    size_mib = QUICK_LARGE_MIB if options.quick else LARGE_MIB
    objects = {PICTURE: picture(), LARGE: large_object(size_mib if "large" in options.only else 1)}
    with bucket(folder, objects) as served:
        place = Place(served, Turns(options.rounds, options.seconds, folder), options.quick)
        results = [_result(measure, place) for name, measure in ROWS.items() if name in options.only]
    print(before)
    if options.quick:
        print("quick: it runs; the figures say nothing")
    print(f"{options.rounds} rounds of {options.seconds} s in turns; medians (lowest-highest); {neighbours}")
    print(text_of(results), flush=True)
    return results


def _result(measure: Measure, place: Place) -> Result:
    """Measure one row; whatever goes wrong is its alone."""
    print(f"{measure.title} ...", file=sys.stderr, flush=True)
    neighbours = Neighbours()
    try:
        return Result(measure.title, measure.lines(place), neighbours.cores())
    except NotMeasuredError as reason:
        return not_measured(measure.title, str(reason))
    except Exception as error:  # the other rows shall not be lost with it
        traceback.print_exc()
        return not_measured(measure.title, f"{type(error).__name__}: {error}"[:120])


if __name__ == "__main__":
    sys.exit(main())
