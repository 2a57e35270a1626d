"""Runs the service's processes: which database, which socket, how many workers, and how they stop."""

import asyncio
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvicorn
from uvicorn.supervisors import Multiprocess

from app import log
from app.api.wire import LaneProtocol
from app.db.migrate import require_current, upgrade
from app.embedded.postgres import EmbeddedPostgres
from app.errors import CommandError
from app.lifespan import open_worker, way_out
from app.metrics import MULTIPROCESS_DIR
from app.secrets import load_keys
from app.settings import PREFIX, Settings
from app.system import answer_at_once, hang_up_on_stalled_readers, raise_descriptor_limit

_FACTORY = "app.main:create_app"


def serve(settings: Settings, host: str, port: int, workers: int) -> None:
    """Run the service until it is told to stop.

    Raises `CommandError` for a taken port, `SchemaError` for a database to migrate first,
    `DatabaseUnavailableError`, `EmbeddedServerError`.
    """
    way_out(settings)
    with bound_socket(host, port) as listening, database_of(settings, exclusive=True) as url:
        serve_on(listening, settings.model_copy(update={"database_url": url}), workers)


def serve_on(listening: socket.socket, settings: Settings, workers: int = 1) -> None:
    """Answer on a bound socket, in this process or in several, with a database that is there already."""
    assert settings.database_url is not None  # noqa: S101 - the callers' own
    asyncio.run(require_current(settings.database_url))
    load_keys(settings)
    hand_over(settings)
    config = _config(settings, workers)
    log.configure(settings.log_level, settings.log_format)
    raise_descriptor_limit()
    answer_at_once(listening)
    hang_up_on_stalled_readers(listening, settings.send_timeout_s)
    if workers == 1:
        server = uvicorn.Server(config)
        with _signals_only_stop():
            server.run(sockets=[listening])
        if not server.started:
            raise CommandError("The service could not start; its log says why.")
        return
    with _shared_metrics():
        _Workers(config, [listening]).run()


class _Workers(Multiprocess):
    """Several worker processes, that share one listening socket with this one."""

    def terminate_all(self) -> None:
        """Stop listening here, too: else clients would connect, and wait for workers that end."""
        for listening in self.sockets:
            listening.close()
        super().terminate_all()


@contextmanager
def _signals_only_stop() -> Iterator[None]:
    """Let a signal that stopped the server end there.

    uvicorn raises it once more when it is done; the default would kill this process before it stopped what it
    had started besides.
    """
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def work(settings: Settings) -> None:
    """Run background jobs alone until told to stop."""
    log.configure(settings.log_level, settings.log_format)
    with database_of(settings) as url:
        asyncio.run(require_current(url))
        asyncio.run(_work(settings.model_copy(update={"database_url": url})))


async def _work(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with open_worker(settings):
        await stop.wait()


@contextmanager
def database_of(settings: Settings, *, exclusive: bool = False) -> Iterator[str]:
    """Give the URL of the configured database, or start the embedded one, which migrates itself.

    `exclusive`: refuse to share the embedded one with a process that runs it already.
    """
    if settings.database_url is not None:
        yield settings.database_url
        return
    make_private(settings.data_dir)
    load_keys(settings)
    with EmbeddedPostgres(settings.data_dir / "postgres", exclusive=exclusive) as url:
        asyncio.run(upgrade(url))
        yield url


def make_private(data_dir: Path) -> None:
    """Make the data directory for its owner alone: keys and databases lie there."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        data_dir.chmod(0o700)
    except OSError as error:
        raise CommandError(f"FRAMEGATE_DATA_DIR: {data_dir}: {error.strerror}.") from None


@contextmanager
def bound_socket(host: str, port: int) -> Iterator[socket.socket]:
    """Listen on an address before anything else is started; raises `CommandError` if it is taken."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise CommandError(
            f"{host}:{port}: {error.strerror}. Choose another one with --port (or --host)."
        ) from None
    with bound:
        yield bound


def hand_over(settings: Settings) -> None:
    """Let worker processes read the same settings: they start from the environment."""
    for name in settings.model_fields_set & {"database_url", "data_dir", "allowed_private_endpoints"}:
        value = getattr(settings, name)
        os.environ[PREFIX + name.upper()] = ",".join(value) if isinstance(value, tuple) else str(value)


def _config(settings: Settings, workers: int) -> uvicorn.Config:
    return uvicorn.Config(
        _FACTORY,
        factory=True,
        workers=workers,
        loop="uvloop",
        http=LaneProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_keep_alive=75,
        timeout_graceful_shutdown=round(settings.grace_s),
    )


@contextmanager
def _shared_metrics() -> Iterator[None]:
    """Give workers a folder to count in together; Prometheus' client looks for it in the environment."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="framegate-metrics-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        os.environ[MULTIPROCESS_DIR] = str(folder)
        yield
