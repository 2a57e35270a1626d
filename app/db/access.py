"""Queries over users and tokens."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.tables import TOKENS, USERS

Role = Literal["admin", "user", "worker"]


@dataclass(frozen=True, slots=True)
class UserRow:
    """A user."""

    id: int
    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token and its user; never the token itself."""

    id: int
    name: str
    user_id: int
    user_name: str
    role: Role
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


_COLUMNS = (
    TOKENS.c.id,
    TOKENS.c.name,
    TOKENS.c.user_id,
    USERS.c.name.label("user_name"),
    USERS.c.role,
    TOKENS.c.created_at,
    TOKENS.c.expires_at,
    TOKENS.c.revoked_at,
)


def _tokens() -> Any:
    return select(*_COLUMNS).join(USERS, USERS.c.id == TOKENS.c.user_id)


async def find_or_create_user(session: AsyncSession, name: str, role: str) -> UserRow:
    """Give the user of that name, made with `role` if there is none; safe when two ask at once."""
    await session.execute(insert(USERS).values(name=name, role=role).on_conflict_do_nothing())
    found = select(USERS.c.id, USERS.c.name, USERS.c.role).where(USERS.c.name == name)
    return UserRow(*(await session.execute(found)).one())


async def insert_token(
    session: AsyncSession, user_id: int, name: str, digest: bytes, expires_at: datetime | None
) -> TokenRow:
    """Store a token by its digest."""
    values = {"user_id": user_id, "name": name, "digest": digest, "expires_at": expires_at}
    token_id = (await session.execute(insert(TOKENS).values(values).returning(TOKENS.c.id))).scalar_one()
    return TokenRow(*(await session.execute(_tokens().where(TOKENS.c.id == token_id))).one())


async def token_by_digest(session: AsyncSession, digest: bytes) -> TokenRow | None:
    """Find a token by its digest."""
    row = (await session.execute(_tokens().where(TOKENS.c.digest == digest))).one_or_none()
    return None if row is None else TokenRow(*row)


async def token_by_id(session: AsyncSession, token_id: int) -> TokenRow | None:
    """Find a token by its id."""
    row = (await session.execute(_tokens().where(TOKENS.c.id == token_id))).one_or_none()
    return None if row is None else TokenRow(*row)


async def list_tokens(session: AsyncSession, user_id: int, after: int, limit: int) -> list[TokenRow]:
    """List a user's tokens that are not revoked, ids above `after`, by id."""
    chosen = _tokens().where(TOKENS.c.user_id == user_id, TOKENS.c.revoked_at.is_(None), TOKENS.c.id > after)
    rows = await session.execute(chosen.order_by(TOKENS.c.id).limit(limit))
    return [TokenRow(*row) for row in rows]


async def revoke_token(session: AsyncSession, token_id: int) -> None:
    """Mark a token as revoked; every process hears of it."""
    await session.execute(update(TOKENS).where(TOKENS.c.id == token_id).values(revoked_at=func.now()))
