"""The words of object storage: what a read asks for, what it gives, and what a provider must do.

What every read makes anew is a msgspec struct: as frozen as a dataclass, and made in a fifth of the time.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

import msgspec
from pydantic import SecretStr

from app.errors import StorageError

Method = Literal["GET", "HEAD"]


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `[start, stop)` of an object; `stop` None means to its end."""

    start: int
    stop: int | None = None


@dataclass(frozen=True, slots=True)
class Suffix:
    """The last `length_bytes` bytes of an object."""

    length_bytes: int


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What a reader asks of an object beyond its key (RFC 9110 sections 13 and 14).

    Entity tags stand as in the header (`"abc"`, `W/"abc"`); the tuple `("*",)` is the star.
    """

    range: ByteRange | Suffix | None = None
    if_match: tuple[str, ...] | None = None
    if_none_match: tuple[str, ...] | None = None
    if_modified_since: datetime | None = None
    if_unmodified_since: datetime | None = None
    if_range: str | datetime | None = None


PLAIN_READ = ReadOptions()


class ObjectMeta(msgspec.Struct, frozen=True):
    """What a bucket says of one object; never what is in it."""

    key: str
    size_bytes: int
    etag: str | None
    """As in the header, quotes and `W/` included; None where the bucket gives none."""
    last_modified: datetime | None
    media_type: str | None
    """The stored `Content-Type`, not to be trusted."""
    content_encoding: str | None = None


Piece = bytes | memoryview
"""Some bytes of a body. A view keeps the memory that it was received into from being used again."""


class ByteStream(Protocol):
    """A body on its way from a bucket; whoever received it closes it, on every way out."""

    def __aiter__(self) -> AsyncIterator[Piece]:
        """Give the bytes in order; raises `BrokenStreamError` when fewer come than were promised."""
        ...

    async def aclose(self) -> None:
        """Free the connection; closing twice, or after the end, does nothing."""
        ...


class ObjectRead(msgspec.Struct, frozen=True):
    """One answered read; `body` is bytes when it was small enough to be read whole."""

    meta: ObjectMeta
    body: "bytes | ByteStream" = b""
    part: tuple[int, int] | None = None
    """The answered bytes `[start, stop)` where only a part was asked for and given."""
    not_modified: bool = False
    """True: the reader's copy is current and there is no body (RFC 9110 section 15.4.5)."""


@dataclass(frozen=True, slots=True)
class ListedObject:
    """One entry of a listing: an object, or a folder (`is_prefix`, whose other facts are None)."""

    key: str
    is_prefix: bool = False
    size_bytes: int | None = None
    etag: str | None = None
    last_modified: datetime | None = None
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of a listing in the bucket's own order; it may be short with `cursor` set."""

    items: Sequence[ListedObject]
    cursor: str | None
    """The provider's own continuation token; None at the end."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request goes: a scheme, a host name or literal (no brackets), a port."""

    scheme: Literal["http", "https"]
    host: str
    port: int


class SignedRequest(msgspec.Struct, frozen=True):
    """One read ready to be sent: `target` is the raw path and query, `headers` include Host."""

    origin: Origin
    method: Method
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]


class Answer(msgspec.Struct, frozen=True):
    """One HTTP answer of a bucket, given before the first byte of a long body was taken."""

    status: int
    headers: Mapping[bytes, bytes]
    """Lower-case names; the last of repeated ones."""
    body: "bytes | ByteStream"
    length_bytes: int | None
    """The promised length of the body; None when it is chunked or ends with the connection."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the answer to a presigned URL says in place of what is stored; texts as they stand in headers."""

    content_type: str
    content_disposition: str | None
    """None: as it is stored."""
    cache_control: str


@dataclass(frozen=True, slots=True)
class Redirection:
    """A read that its bucket answers itself: a URL of minutes that needs no credential, so never to be shown."""

    location: SecretStr


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider's data plane can do by itself."""

    suffix_ranges: bool


@dataclass(frozen=True, slots=True)
class Pin:
    """What a write may replace: the object of one strong tag, nothing at all, or (the default) anything."""

    etag: str | None = None
    missing: bool = False


ANYTHING = Pin()


class PartedUpload(Protocol):
    """A long object on its way into a bucket; nothing of it is to be seen before it is completed."""

    async def put_part(self, number: int, body: bytes) -> None:
        """Store part `number` (1 to 10,000); parts may be stored in any order, and several at once."""
        ...

    async def complete(self, pin: Pin) -> str | None:
        """Make the object of its parts, by their numbers, and give its entity tag.

        Raises `PreconditionFailedError` where the bucket finds the key in another state than `pin`.
        """
        ...

    async def abort(self) -> None:
        """Take the parts away; one that is over already is no error."""
        ...


@dataclass(frozen=True, slots=True)
class Check:
    """One line of a probe's checklist."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


class Provider(Protocol):
    """One kind of bucket, opened with one credential: it signs reads, lists, and translates refusals.

    Keys are whole bucket keys that already passed `app.storage.keys`. Every method may be cancelled at
    any await and leaves nothing open. Order of listings is the bucket's own and means nothing.
    """

    capabilities: Capabilities
    origin: Origin
    """Where its reads go."""

    @property
    def clock_skew_s(self) -> float:
        """Seconds that the bucket's clock is ahead of ours, as far as it was learned."""
        ...

    def sign(self, method: Method, key: str, extra: Sequence[tuple[bytes, bytes]] = ()) -> SignedRequest:
        """Sign one read of `key`; `extra` headers (Range, If-*) are sent along unsigned. No I/O."""
        ...

    def presign(self, method: Method, key: str, lifetime_s: int, overrides: Overrides) -> SecretStr:
        """Give a URL that reads `key` by `method` alone for `lifetime_s` seconds, credential and all. No I/O.

        An anonymous one is the object's plain URL: it has no end, and its answer says what is stored. Raises
        `MisconfiguredError` where the URL would give the credential itself away.
        """
        ...

    def adjust_clock(self, answer: Answer) -> bool:
        """Learn our clock's skew from a refusal's Date; True: signing again is worth one try."""
        ...

    def explain(self, status: int, headers: Mapping[bytes, bytes], body: bytes, key: str) -> StorageError:
        """Translate a refused read, from the answer already in hand (no second request)."""
        ...

    async def list(self, prefix: str, delimiter: str, cursor: str | None, limit: int) -> ListPage:
        """List up to `limit` keys below `prefix`; `delimiter` is `""` or `"/"`.

        Raises `StorageError` (missing bucket, denied, unreachable, ...) and `InvalidInputError` at
        `query:cursor` for a cursor that the bucket refuses.
        """
        ...

    async def check_access(self) -> None:
        """Ask for the one thing that every sufficient credential can do; raises `StorageError`.

        S3: list one key; Azure: list one blob, or HEAD of an unlikely name where the SAS has no List right
        is refused with `AccessDeniedError` at `auth/sas_token`. A wrong region raises `WrongRegionError`.
        """
        ...

    async def put(
        self, key: str, body: bytes, media_type: str | None = None, pin: Pin = ANYTHING
    ) -> str | None:
        """Store an object of a few MiB and give its entity tag; whole, or not at all.

        Raises `PreconditionFailedError` (or `ObjectMissingError`) where the bucket finds the key in another
        state than `pin`; a bucket may not know pins at all. Like every write it raises
        `ReadOnlyCredentialError` and `WriteRefusedError`.
        """
        ...

    async def begin(self, key: str, media_type: str | None = None) -> PartedUpload:
        """Begin to store a long object; the caller completes or aborts it."""
        ...

    async def delete(self, key: str, pin: Pin = ANYTHING) -> None:
        """Delete an object; a missing one is no error, unless it was pinned."""
        ...

    async def aclose(self) -> None:
        """Close what the provider opened itself (never the shared session); closing twice does nothing."""
        ...
