"""The checklist of a bucket: what works, what does not, and what to do about it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

from app.errors import (
    AccessDeniedError,
    Fault,
    HealthState,
    InvalidKeyError,
    StorageError,
    WrongRegionError,
)
from app.storage.base import PLAIN_READ, ByteRange, Check, ReadOptions
from app.storage.bucket import Bucket

TOLERATED_SKEW_S = 240
REDIRECT = "redirect"
_SAMPLE = 10
_TO_WRITE = "Allow s3:PutObject and s3:DeleteObject, or a SAS with Create, Write and Delete on Object."


@dataclass(frozen=True, slots=True)
class Report:
    """A finished checklist; `faults` point into the body of an attach, `state` is the first refusal's."""

    checks: tuple[Check, ...]
    state: HealthState
    faults: tuple[Fault, ...]

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(check.ok for check in self.checks)

    def refusing_redirects(self, error: StorageError) -> "Report":
        """Give the report of a storage that may not redirect, whatever else works."""
        check = Check(REDIRECT, ok=False, detail=error.detail, remedy=error.remedy)
        state = error.state if self.state == "available" else self.state
        return replace(
            self, checks=(*self.checks, check), state=state, faults=(*self.faults, delivery_fault(error))
        )


async def probe(bucket: Bucket, manifests: Sequence[str], *, write: bool, redirect: bool = False) -> Report:
    """Try a bucket from the name of its host to its manifests; never raises for what the bucket refuses.

    `redirect`: also read by a URL as clients of a redirecting storage do.
    """
    checklist = _Checklist(bucket, redirect=redirect)
    await checklist.run(manifests, write=write)
    return checklist.report()


def unopened(error: StorageError) -> Report:
    """Give the checklist of a bucket that could not even be opened: its credential, or its description."""
    check = Check("credentials", ok=False, detail=error.detail, remedy=error.remedy)
    return Report((check,), error.state, (fault_of(error),))


def fault_of(error: StorageError) -> Fault:
    """Give a bucket's refusal as a fault at the field of the body that it is about."""
    pointer = f"/source/{error.at}" if error.at else "/source"
    return Fault(pointer, f"{error.detail} {error.remedy}".strip())


def delivery_fault(error: StorageError) -> Fault:
    """Give what stands against redirects as a fault at the field that asks for them."""
    return Fault("/delivery", f"{error.detail} {error.remedy}".strip())


class _Checklist:
    """Collects the checks of one run; what needs a step that failed is not tried."""

    def __init__(self, bucket: Bucket, *, redirect: bool) -> None:
        self._bucket = bucket
        self._redirect = redirect
        self._checks: list[Check] = []
        self._faults: list[Fault] = []
        self._state: HealthState = "available"

    def report(self) -> Report:
        return Report(tuple(self._checks), self._state, tuple(self._faults))

    async def run(self, manifests: Sequence[str], *, write: bool) -> None:
        if not (await self._connect() and await self._access()):
            return
        await self._reads()
        if write:
            await self._step("write", self._write, "A small object was written and deleted again.")
        for index, key in enumerate(manifests):
            await self._manifest(index, key)

    async def _connect(self) -> bool:
        try:
            await self._bucket.connect_check()
        except StorageError as error:
            name = (
                "name resolution" if error.at == "account_name" or "resolve" in error.detail else "connection"
            )
            if name == "connection":
                self._passed("name resolution")
            self._refused(name, error)
            return False
        self._passed("name resolution")
        self._passed("connection")
        return True

    async def _access(self) -> bool:
        refusal: StorageError | None = None
        try:
            await self._bucket.check_access()
        except StorageError as error:
            refusal = error
        if isinstance(refusal, WrongRegionError):
            self._refused("region", refusal)
            return False
        self._passed("region")
        self._clock()
        if refusal is not None:
            # A credential as a whole lacks a right; one of its fields is wrong.
            self._refused("credentials" if refusal.at.startswith("auth/") else "list", refusal)
            return False
        self._passed("credentials")
        self._passed("list")
        return True

    def _clock(self) -> None:
        skew_s = abs(self._bucket.clock_skew_s)
        fine = skew_s <= TOLERATED_SKEW_S
        detail = f"The bucket's clock and ours differ by {skew_s:.0f} s." if skew_s else "In time."
        self._checks.append(Check("clock", fine, detail, "" if fine else "Set this machine's clock (NTP)."))

    async def _reads(self) -> None:
        try:
            page = await self._bucket.list(self._bucket.prefix, "", None, _SAMPLE)
        except StorageError as error:
            self._refused("list", error)
            return
        key = next((item.key for item in page.items if not item.is_prefix and item.size_bytes), None)
        if key is None:
            for name in ("read", "ranged read", *([REDIRECT] if self._redirect else [])):
                self._checks.append(Check(name, ok=True, detail="There is no object to try it with."))
            return
        await self._step("read", lambda: self._bucket.head(key, PLAIN_READ), "An object can be read.")
        await self._step("ranged read", lambda: self._first_byte(key), "A part of an object can be read.")
        if self._redirect:
            await self._redirects(key)

    async def _redirects(self, key: str) -> None:
        """Try it from here; whether clients reach the bucket too is theirs to find out."""
        before = len(self._faults)
        done = "The bucket takes our presigned URL; clients must reach it, too."
        await self._step(REDIRECT, lambda: self._bucket.redirect_check(key), done)
        if len(self._faults) > before:
            self._faults[-1] = Fault("/delivery", self._faults[-1].detail)

    async def _first_byte(self, key: str) -> None:
        read = await self._bucket.open(key, ReadOptions(range=ByteRange(0, 1)))
        if not isinstance(read.body, bytes):
            await read.body.aclose()

    async def _write(self) -> None:
        try:
            await self._bucket.write_check(f"{self._bucket.prefix}.framegate-probe-{uuid4().hex}")
        except AccessDeniedError as error:
            raise AccessDeniedError("The credential may not write.", at=error.at, remedy=_TO_WRITE) from error

    async def _manifest(self, index: int, key: str) -> None:
        name, before = f"manifest {key}", len(self._faults)
        await self._step(name, lambda: self._bucket.head(key, PLAIN_READ), "It can be read.")
        if len(self._faults) > before:
            self._faults[-1] = Fault(f"/manifests/{index}", self._faults[-1].detail)

    async def _step(self, name: str, act: Callable[[], Awaitable[object]], done: str) -> None:
        try:
            await act()
        except StorageError as error:
            self._refused(name, error)
        except InvalidKeyError as error:
            self._checks.append(Check(name, ok=False, detail=error.detail))
            self._faults.append(Fault("/source", error.detail))
        else:
            self._passed(name, done)

    def _passed(self, name: str, detail: str = "Works.") -> None:
        self._checks.append(Check(name, ok=True, detail=detail))

    def _refused(self, name: str, error: StorageError) -> None:
        if not self._faults and error.state != "available":
            self._state = error.state
        self._faults.append(fault_of(error))
        self._checks.append(Check(name, ok=False, detail=error.detail, remedy=error.remedy))
