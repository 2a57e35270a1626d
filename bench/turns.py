"""Load on several peers in turns (A B C A B C ...), and how one compares with another."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.bucket import Bucket
from bench.load import Load, run_wrk
from bench.peers import Peer


@dataclass(frozen=True, slots=True)
class Work:
    """What is asked of every peer."""

    title: str
    key: str
    connections: int
    whole_objects: bool = True
    """Whether a run sees enough whole objects to count them; else bytes alone are counted."""


@dataclass(frozen=True, slots=True)
class Turns:
    """How often each peer has its turn, how long that takes, and where the load may write."""

    rounds: int
    seconds: int
    folder: Path


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

    @property
    def failed(self) -> int:
        """Answers that were none."""
        return sum(run.load.failed for run in self.runs)


def in_turns(peers: Sequence[Peer], work: Work, turns: Turns) -> list[Row]:
    """Give each peer its runs, after a second that warms it up and is not counted."""
    rows = [Row(peer.name) for peer in peers]
    for peer in peers:
        _turn(peer, work, 1, turns.folder)
        peer.process.forget_peak()
    for number in range(turns.rounds):
        for peer, row in zip(peers, rows, strict=True):
            row.runs.append(_turn(peer, work, turns.seconds, turns.folder))
        print(f"{work.title}: round {number + 1} of {turns.rounds} done", file=sys.stderr, flush=True)
    for peer, row in zip(peers, rows, strict=True):
        row.peak_bytes = peer.process.peak_memory_bytes()
    return rows


def check(peer: Peer, served: Bucket, key: str) -> None:
    """See that a peer gives the bucket's bytes; raises `RuntimeError`."""
    if peer.fetch(key) != served.body(key):
        raise RuntimeError(f"{peer.name} does not serve the bucket's bytes")


def speed_ratio(row: Row, other: Row) -> float:
    """Compare bytes a second within each round: what disturbs the machine then disturbs both."""
    pairs = zip(row.runs, other.runs, strict=True)
    return median(one.mb_per_s / two.mb_per_s for one, two in pairs if two.mb_per_s)


def spread(values: Sequence[float], form: str) -> str:
    """Give the median and, of several, the lowest and the highest."""
    middle = f"{median(values):{form}}"
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}}-{max(values):{form}})"


def _turn(peer: Peer, work: Work, seconds: int, folder: Path) -> Run:
    before = peer.process.cpu_s()
    load = run_wrk(
        peer.url + work.key, peer.headers, connections=work.connections, seconds=seconds, folder=folder
    )
    return Run(load, peer.process.cpu_s() - before)
