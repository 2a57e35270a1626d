"""The `framegate` command; each command a few lines over a service."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from app import __version__
from app.db.access import Role
from app.db.migrate import require_current, upgrade
from app.db.session import Database
from app.errors import DatabaseUnavailableError, FramegateError, InvalidInputError
from app.secrets import Sealer, load_keys
from app.services.access import parse_lifetime
from app.settings import Settings

T = TypeVar("T")

cli = typer.Typer(
    name="framegate",
    help="Streams image datasets from cloud buckets to the people and programs that annotate them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
token_cli = typer.Typer(help="Access tokens.", no_args_is_help=True)
secrets_cli = typer.Typer(help="The keys that seal stored credentials.", no_args_is_help=True)
cli.add_typer(token_cli, name="token")
cli.add_typer(secrets_cli, name="secrets")

Host = Annotated[str, typer.Option(help="The address to listen on.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")]


def main() -> NoReturn:
    """Run the command: exit 0 done, 1 it could not be done (one line on stderr), 2 wrong usage."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        cli()
    except KeyboardInterrupt:
        sys.exit(130)
    except FramegateError as error:
        hint = " Check FRAMEGATE_DATABASE_URL." if isinstance(error, DatabaseUnavailableError) else ""
        print(f"framegate: {error}{hint}", file=sys.stderr)  # noqa: T201 - a command speaks to its terminal
        sys.exit(1)
    sys.exit(0)


@cli.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


@cli.command()
def serve(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    workers: Annotated[int, typer.Option(min=1, max=256, help="How many processes answer.")] = 1,
) -> None:
    """Run the service, with an embedded PostgreSQL where no FRAMEGATE_DATABASE_URL is set."""
    from app.serving import serve as run  # noqa: PLC0415 - the server's imports would slow every other command

    run(Settings.read(), host, port, workers)


@cli.command()
def worker() -> None:
    """Run background jobs alone, until it is told to stop."""
    from app.serving import work  # noqa: PLC0415 - as in serve

    work(Settings.read())


@cli.command()
def demo(
    folder: Annotated[Path | None, typer.Argument(help="Pictures to serve; drawn ones if left out.")] = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is kept.")] = None,
) -> None:
    """Run the whole system on this machine: PostgreSQL, an S3 server, pictures, a manifest, a token."""
    from app.demo import run  # noqa: PLC0415 - as in serve

    overrides: dict[str, object] = {} if data_dir is None else {"data_dir": data_dir}
    run(Settings.read(**overrides), folder, host, port)


@cli.command()
def migrate() -> None:
    """Bring the database to the newest schema; one process at a time."""
    _with_database(Settings.read(), _say_migrated)


@token_cli.command("create")
def create_token(
    name: Annotated[str, typer.Option(help="The user; made if there is none.")],
    role: Annotated[Role | None, typer.Option(help="Of a new user; user if left out.")] = None,
    expires: Annotated[
        str | None, typer.Option(help="How long it lives: 30d, 12h, 45m; for ever if left out.")
    ] = None,
) -> None:
    """Make a token of a user, and print it: this once."""
    lifetime = _lifetime(expires)
    settings = Settings.read()

    async def create(database: Database) -> None:
        from app.services.access import issue_token  # noqa: PLC0415

        typer.echo((await issue_token(database, name, role, lifetime)).text)

    _with_database(settings, create)


@secrets_cli.command("rotate")
def rotate_secrets() -> None:
    """Seal every stored credential anew under the newest key."""
    settings = Settings.read()
    sealer = Sealer(load_keys(settings))

    async def rotate(database: Database) -> None:
        from app.services.rotation import rotate as reseal  # noqa: PLC0415

        report = await reseal(database, sealer)
        typer.echo(f"{report.resealed} storages sealed anew, {report.current} were already.")
        for storage_id in report.unreadable:
            typer.echo(f"The credential of storage {storage_id} could not be read.", err=True)
        if report.unreadable:
            raise typer.Exit(1)

    _with_database(settings, rotate)


async def _say_migrated(database: Database) -> None:
    await upgrade(database.url)
    typer.echo("The database has the newest schema.")


def _lifetime(text: str | None) -> timedelta | None:
    if text is None:
        return None
    try:
        return parse_lifetime(text)
    except InvalidInputError as error:
        raise typer.BadParameter(error.faults[0].detail, param_hint="--expires") from None


def _with_database(settings: Settings, act: Callable[[Database], Coroutine[Any, Any, None]]) -> None:
    """Run one action on the configured database, or on the embedded one, started if it does not run."""
    from app.serving import database_of  # noqa: PLC0415

    async def run(url: str) -> None:
        if act is not _say_migrated:
            await require_current(url)
        database = Database(url, pool_size=1)
        try:
            await act(database)
        finally:
            await database.aclose()

    with database_of(settings) as url:
        asyncio.run(run(url))
