"""The tables, as SQLModel metadata: the one description that migrations and queries share."""

from datetime import datetime
from typing import Any, ClassVar, cast
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlmodel import Field, SQLModel

metadata: MetaData = SQLModel.metadata
metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


def _id() -> Column[int]:
    return Column(BigInteger, Identity(always=True), primary_key=True)


def _ref(
    target: str, *, nullable: bool = False, ondelete: str = "CASCADE", index: bool = True
) -> Column[int]:
    return Column(BigInteger, ForeignKey(target, ondelete=ondelete), nullable=nullable, index=index)


def _now() -> Column[datetime]:
    return Column(DateTime(timezone=True), nullable=False, server_default=func.now())


def _moment() -> Column[datetime]:
    return Column(DateTime(timezone=True), nullable=True)


def _text(*, nullable: bool = False, default: str | None = None) -> Column[str]:
    return Column(Text, nullable=nullable, server_default=default)


def _json(*, nullable: bool = False) -> Column[Any]:
    return Column(
        JSONB(none_as_null=True), nullable=nullable, server_default=None if nullable else text("'{}'")
    )


class User(SQLModel, table=True):
    """A principal: storages and tokens belong to one."""

    __tablename__: ClassVar[str] = "users"
    __table_args__ = (CheckConstraint("role IN ('admin', 'user', 'worker')", name="role"),)

    id: int = Field(sa_column=_id())
    name: str = Field(sa_column=Column(Text, nullable=False, unique=True))
    role: str = Field(sa_column=_text())
    created_at: datetime = Field(sa_column=_now())


class Token(SQLModel, table=True):
    """An access token: its SHA-256 alone, never the token."""

    __tablename__: ClassVar[str] = "tokens"

    id: int = Field(sa_column=_id())
    user_id: int = Field(sa_column=_ref("users.id"))
    name: str = Field(sa_column=_text(default=""))
    digest: bytes = Field(sa_column=Column(LargeBinary, nullable=False, unique=True))
    created_at: datetime = Field(sa_column=_now())
    expires_at: datetime | None = Field(sa_column=_moment())
    revoked_at: datetime | None = Field(sa_column=_moment())


class Storage(SQLModel, table=True):
    """An attached bucket or container; `sealed` holds its credential, field by field."""

    __tablename__: ClassVar[str] = "storages"
    __table_args__ = (
        CheckConstraint("provider IN ('s3', 'azure')", name="provider"),
        CheckConstraint("delivery IN ('proxy', 'redirect')", name="delivery"),
    )

    id: int = Field(sa_column=_id())
    uuid: UUID = Field(sa_column=Column(PG_UUID(as_uuid=True), nullable=False, unique=True))
    """What the sealed credential is bound to: an id could be used again after a restore."""
    owner_id: int = Field(sa_column=_ref("users.id", ondelete="RESTRICT"))
    version: int = Field(sa_column=Column(Integer, nullable=False, server_default="1"))
    """Rises with every change; the ETag of the storage and the key of everything cached of it."""
    display_name: str = Field(sa_column=_text())
    description: str = Field(sa_column=_text(default=""))
    provider: str = Field(sa_column=_text())
    bucket: str = Field(sa_column=_text())
    """The bucket, or the Azure container."""
    account_name: str | None = Field(sa_column=_text(nullable=True))
    region: str | None = Field(sa_column=_text(nullable=True))
    endpoint_url: str | None = Field(sa_column=_text(nullable=True))
    prefix: str = Field(sa_column=_text(default=""))
    auth_type: str = Field(sa_column=_text())
    auth_hint: dict[str, Any] = Field(sa_column=_json())
    """What may be shown of the credential: `access_key_id_last4`, `expires_at`."""
    sealed: dict[str, str] = Field(sa_column=_json())
    """Field name to sealed text, see `app.secrets`."""
    delivery: str = Field(sa_column=_text(default="proxy"))
    created_at: datetime = Field(sa_column=_now())
    updated_at: datetime = Field(sa_column=_now())


class Manifest(SQLModel, table=True):
    """A dataset manifest that was registered from a storage."""

    __tablename__: ClassVar[str] = "manifests"
    __table_args__ = (
        UniqueConstraint("storage_id", "key"),
        CheckConstraint("state IN ('pending', 'ready', 'failed')", name="state"),
    )

    id: int = Field(sa_column=_id())
    storage_id: int = Field(sa_column=_ref("storages.id", index=False))
    key: str = Field(sa_column=_text())
    attached: bool = Field(sa_column=Column("attached", Boolean, nullable=False, server_default=text("true")))
    position: int = Field(sa_column=Column(Integer, nullable=False, server_default="0"))
    """Its place in the storage's `manifests` list."""
    state: str = Field(sa_column=_text(default="pending"))
    revision_id: int | None = Field(
        sa_column=Column(
            BigInteger,
            ForeignKey("revisions.id", ondelete="SET NULL", use_alter=True, name="fk_manifests_revision_id"),
            nullable=True,
        )
    )
    """The revision that is shown: served when `ready`; its problems alone when `failed`."""
    revision_number: int = Field(sa_column=Column(Integer, nullable=False, server_default="0"))
    """The highest revision number ever given, so that no number is used twice."""
    job_id: UUID | None = Field(sa_column=Column(PG_UUID(as_uuid=True), nullable=True))
    """The newest job that registers or syncs it."""
    synced_at: datetime | None = Field(sa_column=_moment())
    created_at: datetime = Field(sa_column=_now())


class Revision(SQLModel, table=True):
    """One reading of a manifest; immutable once it is visible."""

    __tablename__: ClassVar[str] = "revisions"
    __table_args__ = (UniqueConstraint("manifest_id", "number"),)

    id: int = Field(sa_column=_id())
    manifest_id: int = Field(sa_column=_ref("manifests.id", index=False))
    number: int = Field(sa_column=Column(Integer, nullable=False))
    kind: str | None = Field(sa_column=_text(nullable=True))
    version: str | None = Field(sa_column=_text(nullable=True))
    etag: str | None = Field(sa_column=_text(nullable=True))
    last_modified: datetime | None = Field(sa_column=_moment())
    size_bytes: int = Field(sa_column=Column(BigInteger, nullable=False, server_default="0"))
    frame_count: int = Field(sa_column=Column(Integer, nullable=False, server_default="0"))
    problem_count: int = Field(sa_column=Column(BigInteger, nullable=False, server_default="0"))
    created_at: datetime = Field(sa_column=_now())


class Frame(SQLModel, table=True):
    """One item line of a manifest; `key` is the whole bucket key.

    No foreign key: a check for each of a million rows costs more than the COPY itself, and a cascade would
    make a DELETE wait for them. What a removed revision leaves behind is swept (`DiscardedRevision`).
    """

    __tablename__: ClassVar[str] = "frames"

    revision_id: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    number: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    key: str = Field(sa_column=Column(Text(collation="C"), nullable=False))
    width_px: int | None = Field(sa_column=Column(Integer, nullable=True))
    height_px: int | None = Field(sa_column=Column(Integer, nullable=True))
    checksum: str | None = Field(sa_column=_text(nullable=True))
    meta: dict[str, Any] | None = Field(sa_column=_json(nullable=True))


Index("ix_frames_revision_id_key", Frame.__table__.c.revision_id, Frame.__table__.c.key)  # type: ignore[attr-defined]  # made by SQLModel


class Problem(SQLModel, table=True):
    """One fault of a manifest line; the first thousand of a revision are kept, in order."""

    __tablename__: ClassVar[str] = "problems"

    revision_id: int = Field(
        sa_column=Column(
            BigInteger, ForeignKey("revisions.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
        )
    )
    position: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    line: int = Field(sa_column=Column(BigInteger, nullable=False))
    column: int = Field(sa_column=Column("column", BigInteger, nullable=False))
    code: str = Field(sa_column=_text())
    message: str = Field(sa_column=_text())
    hint: str = Field(sa_column=_text(default=""))


class DiscardedRevision(SQLModel, table=True):
    """A revision that is gone and whose frames are still to be swept; a trigger on `revisions` fills it."""

    __tablename__: ClassVar[str] = "discarded_revisions"

    revision_id: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))


class Job(SQLModel, table=True):
    """A piece of background work; it outlives the process that does it."""

    __tablename__: ClassVar[str] = "jobs"
    __table_args__ = (
        CheckConstraint("state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="state"),
        Index("ix_jobs_open", "created_at", postgresql_where=text("state IN ('queued', 'running')")),
    )

    id: UUID = Field(sa_column=Column(PG_UUID(as_uuid=True), primary_key=True))
    kind: str = Field(sa_column=_text())
    state: str = Field(sa_column=_text(default="queued"))
    owner_id: int = Field(sa_column=_ref("users.id"))
    storage_id: int | None = Field(sa_column=_ref("storages.id", nullable=True))
    manifest_id: int | None = Field(sa_column=_ref("manifests.id", nullable=True))
    arguments: dict[str, Any] = Field(sa_column=_json())
    done: int = Field(sa_column=Column(BigInteger, nullable=False, server_default="0"))
    total: int | None = Field(sa_column=Column(BigInteger, nullable=True))
    errors: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False, server_default=text("'{}'")))
    result: dict[str, Any] | None = Field(sa_column=_json(nullable=True))
    starts: int = Field(sa_column=Column(Integer, nullable=False, server_default="0"))
    """How often a process took it up; given up after a few."""
    beat_at: datetime | None = Field(sa_column=_moment())
    """The last sign of life of the process that runs it."""
    cancel_requested: bool = Field(
        sa_column=Column("cancel_requested", Boolean, nullable=False, server_default=text("false"))
    )
    created_at: datetime = Field(sa_column=_now())
    finished_at: datetime | None = Field(sa_column=_moment())


def _table(model: type[SQLModel]) -> Table:
    return cast("Table", model.__table__)  # type: ignore[attr-defined]  # SQLModel makes it at class creation


# What queries are written against: a model's class attributes are typed as values, not as columns.
USERS = _table(User)
TOKENS = _table(Token)
STORAGES = _table(Storage)
MANIFESTS = _table(Manifest)
REVISIONS = _table(Revision)
FRAMES = _table(Frame)
PROBLEMS = _table(Problem)
DISCARDED_REVISIONS = _table(DiscardedRevision)
JOBS = _table(Job)
