"""One rendering process as the service holds it: started, asked one picture at a time, and killable."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path

from app.images.rendition import MOST_RENDITION_BYTES, Rendition
from app.images.wire import ANSWER_HEAD_BYTES, READY, Outcome, read_answer_head, request_head

START_LIMIT_S = 30.0
_ROOT = Path(__file__).parents[2]
_HANDED_ON = ("LD_LIBRARY_PATH",)
"""All of the environment that Python itself may need; the rest holds keys to the database and to credentials."""
_BUFFER_BYTES = 256 * 1024


class ProcessDiedError(Exception):
    """The process ended, or spoke nonsense, before it had answered."""


class RenderProcess:
    """A started rendering process; whoever has it asks one thing at a time and ends it with `kill`."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None  # noqa: S101 - both were asked for
        assert process.stdout is not None  # noqa: S101
        self._process = process
        self._requests = process.stdin
        self._answers = process.stdout

    @classmethod
    async def start(cls) -> "RenderProcess":
        """Start one and wait until it can render; raises RuntimeError, OSError, TimeoutError: faults of ours.

        What keeps it from starting it says on our stderr; later it is silent.
        """
        environment = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            # -P -s: nothing is imported from the folder of the moment or a user's own packages.
            *(sys.executable, "-P", "-s", "-B", "-m", "app.images.worker", str(os.getpid())),
            stdin=PIPE,
            stdout=PIPE,
            cwd="/",
            env={**environment, "PYTHONPATH": str(_ROOT)},
            start_new_session=True,  # Ctrl-C is for the service alone, which then ends this process
            limit=_BUFFER_BYTES,
        )
        started = cls(process)
        try:
            await asyncio.wait_for(started._greeting(), START_LIMIT_S)
        except BaseException:
            await started.kill()
            raise
        return started

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    async def render(self, picture: bytes, wanted: Rendition) -> tuple[Outcome, bytes]:
        """Give the rendition, or why there is none; raises `ProcessDiedError`.

        Cancelled midway it leaves a process that nobody can ask again: kill it.
        """
        try:
            self._requests.write(request_head(wanted, len(picture)))
            self._requests.write(picture)
            await self._requests.drain()
            outcome, length_bytes = read_answer_head(await self._answers.readexactly(ANSWER_HEAD_BYTES))
            if length_bytes > MOST_RENDITION_BYTES:
                raise ProcessDiedError
            return outcome, await self._answers.readexactly(length_bytes)
        except (OSError, EOFError, ValueError) as error:
            raise ProcessDiedError from error

    async def kill(self) -> None:
        """End the process at once, whatever it does, and wait for its end; killing twice does nothing."""
        with suppress(ProcessLookupError):
            self._process.kill()
        self._requests.close()
        await self._process.wait()

    async def _greeting(self) -> None:
        try:
            greeting = await self._answers.readexactly(len(READY))
        except EOFError:
            greeting = b""
        if greeting != READY:
            raise RuntimeError("a rendering process ended before it could render")
