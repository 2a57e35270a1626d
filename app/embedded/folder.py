"""The folder that one embedded server keeps its things in, and who may use it now."""

import fcntl
import json
import os
import secrets
from pathlib import Path
from typing import IO

from app.embedded import EmbeddedServerError


class ServerFolder:
    """A folder of mode 0700 with one owner at a time; locks vanish with the process that holds them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._owner: IO[str] | None = None
        self._user: IO[str] | None = None

    def make(self) -> None:
        """Create the folder, or close an existing one to others; raises `EmbeddedServerError`."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
        except OSError as error:
            raise EmbeddedServerError(
                f"the data directory {self.path} cannot be used ({error.strerror}): "
                "name another with FRAMEGATE_DATA_DIR, or give this one to the user that runs Framegate"
            ) from error

    def try_own(self) -> bool:
        """Become the one process that runs this folder's server; false while another one is."""
        if self._owner is None:
            self._owner = self._locked("owner.lock", fcntl.LOCK_EX)
        if self._owner is not None:
            self._owner.seek(0)
            self._owner.truncate()
            self._owner.write(str(os.getpid()))
            self._owner.flush()
        return self._owner is not None

    def owner_pid(self) -> str:
        """The process that runs this folder's server, for a message."""
        return (self.path / "owner.lock").read_text().strip() or "unknown"

    def join(self) -> None:
        """Say that this process uses the server."""
        self._user = self._user or self._locked("users.lock", fcntl.LOCK_SH)

    def is_shared(self) -> bool:
        """Whether another process uses the server too; ends our own use."""
        self._leave_users()
        alone = self._locked("users.lock", fcntl.LOCK_EX)
        if alone is not None:
            alone.close()
        return alone is None

    def leave(self) -> None:
        """Give up owning and using."""
        self._leave_users()
        if self._owner is not None:
            self._owner.close()
        self._owner = None

    def read(self, name: str) -> dict[str, object]:
        """What was kept under this name; nothing when there is no such file."""
        try:
            kept: dict[str, object] = json.loads((self.path / name).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return kept

    def write(self, name: str, kept: dict[str, object]) -> None:
        """Keep something in a file of mode 0600; a reader sees the old or the new, never a half."""
        fresh = self.path / f"{name}.{secrets.token_hex(4)}"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(kept, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path / name)

    def _locked(self, name: str, kind: int) -> IO[str] | None:
        file = os.fdopen(os.open(self.path / name, os.O_RDWR | os.O_CREAT, 0o600), "r+")
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def _leave_users(self) -> None:
        if self._user is not None:
            self._user.close()
        self._user = None
