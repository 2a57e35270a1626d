"""Who asks, and what he may do: principals, tokens, and the one rule of ownership."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.db import access as queries
from app.db.access import Role, TokenRow
from app.db.changes import Changes, Remembered
from app.db.session import Database
from app.errors import (
    CommandError,
    Fault,
    ForbiddenError,
    InvalidInputError,
    MissingError,
    UnauthenticatedError,
)

TOKEN_PREFIX = "fg_"  # noqa: S105 - says what a token is, is none
TOKEN_PATTERN = re.compile(r"fg_[A-Za-z0-9_-]{20,37}")
USER_NAME = re.compile(r"[\w.@+-]{1,150}")
LONGEST_TOKEN_LIFE = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller: a user, by one of his tokens."""

    user_id: int
    name: str
    role: Role
    token_id: int


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token just made; `text` is shown once and stored nowhere."""

    row: TokenRow
    text: str


def may_see(principal: Principal, owner_id: int) -> bool:
    """Tell whether a principal may know of, and use, what `owner_id` owns."""
    return principal.role == "admin" or principal.user_id == owner_id


def digest(token: str) -> bytes:
    """Give what is stored of a token: its SHA-256; the token has 192 random bits, so no salt is needed."""
    return hashlib.sha256(token.encode()).digest()


class AccessService:
    """Turns tokens into principals, and makes and revokes tokens."""

    def __init__(self, database: Database, changes: Changes) -> None:
        self._database = database
        self._by_digest: Remembered[bytes, TokenRow] = Remembered(
            changes, {"tokens", "users"}, self._load_by_digest, clear_all=True
        )
        self._by_id: Remembered[int, TokenRow] = Remembered(
            changes, {"tokens", "users"}, self._load_by_id, clear_all=True
        )

    async def authenticate(self, token: str) -> Principal:
        """Give the principal of a token; no query while the token is remembered.

        Raises `UnauthenticatedError` for an unknown, expired or revoked one, `DatabaseUnavailableError`.
        """
        return _principal(await self._by_digest.get(_checked_digest(token)))

    def at_hand(self, token: str) -> Principal | None:
        """Give the principal of a token that is remembered, else None; raises as `authenticate` does."""
        row = self._by_digest.at_hand(_checked_digest(token))
        return None if row is None else _principal(row)

    async def principal_of_token(self, token_id: int) -> Principal:
        """Give the principal behind a token's id, for a signed URL; raises `UnauthenticatedError`."""
        return _principal(await self._by_id.get(token_id))

    async def create_token(self, principal: Principal, name: str, lifetime: timedelta | None) -> NewToken:
        """Make a further token of the principal's own user."""
        return await _store_token(self._database, principal.user_id, name, lifetime)

    async def list_tokens(self, principal: Principal, after: int, limit: int) -> list[TokenRow]:
        """List the principal's own tokens that are not revoked, by id."""
        async with self._database.session() as session:
            return await queries.list_tokens(session, principal.user_id, after, limit)

    async def revoke_token(self, principal: Principal, token_id: int) -> None:
        """Revoke one of the principal's tokens (any, for an admin); raises `MissingError`."""
        async with self._database.session() as session:
            row = await queries.token_by_id(session, token_id)
            if row is None or row.revoked_at or not may_see(principal, row.user_id):
                raise MissingError("token", "There is no such token.")
            await queries.revoke_token(session, token_id)
        # Here at once; other processes hear of it from the database.
        self._by_digest.clear()
        self._by_id.clear()

    async def _load_by_digest(self, key: bytes) -> TokenRow | None:
        async with self._database.session() as session:
            return await queries.token_by_digest(session, key)

    async def _load_by_id(self, key: int) -> TokenRow | None:
        async with self._database.session() as session:
            return await queries.token_by_id(session, key)


async def issue_token(
    database: Database, user_name: str, role: Role | None, lifetime: timedelta | None
) -> NewToken:
    """Make a token of a user, and the user if there is none; for the command line.

    Raises `CommandError` for a bad name, or a role that an existing user does not have.
    """
    if not USER_NAME.fullmatch(user_name):
        raise CommandError(f"{user_name!r} is no user name: 1 to 150 letters, digits or any of _ . @ + -")
    async with database.session() as session:
        user = await queries.find_or_create_user(session, user_name, role or "user")
    if role is not None and user.role != role:
        raise CommandError(f"The user {user_name} exists already with the role {user.role}.")
    return await _store_token(database, user.id, "", lifetime)


async def _store_token(database: Database, user_id: int, name: str, lifetime: timedelta | None) -> NewToken:
    text = TOKEN_PREFIX + secrets.token_urlsafe(24)
    expires_at = None if lifetime is None else datetime.now(UTC) + lifetime
    async with database.session() as session:
        row = await queries.insert_token(session, user_id, name, digest(text), expires_at)
    return NewToken(row, text)


def _checked_digest(token: str) -> bytes:
    if not TOKEN_PATTERN.fullmatch(token):
        raise UnauthenticatedError("That is no token of Framegate.", presented=True)
    return digest(token)


def _principal(row: TokenRow | None) -> Principal:
    if row is None or row.revoked_at is not None:
        raise UnauthenticatedError("The token is unknown or was revoked.", presented=True)
    if row.expires_at is not None and row.expires_at <= datetime.now(UTC):
        raise UnauthenticatedError("The token has expired.", presented=True)
    return Principal(row.user_id, row.user_name, row.role, row.id)


def require_creator(principal: Principal) -> None:
    """Raise `ForbiddenError` unless the principal's role may attach storages."""
    if principal.role == "worker":
        raise ForbiddenError("A worker may not attach storages; ask for the role user.")


def require_writer(principal: Principal) -> None:
    """Raise `ForbiddenError` unless the principal's role may write to the buckets of its storages."""
    if principal.role == "worker":
        raise ForbiddenError("A worker may not write objects; ask for the role user.")


def parse_lifetime(text: str) -> timedelta:
    """Read `30d`, `12h`, `45m` or `90s`; raises `InvalidInputError` at `/expires`."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if match is None:
        raise InvalidInputError(Fault("/expires", "a lifetime is a number and s, m, h or d, such as 30d"))
    seconds = int(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
    if seconds > LONGEST_TOKEN_LIFE.total_seconds():
        raise InvalidInputError(Fault("/expires", "a token lives ten years at most"))
    return timedelta(seconds=seconds)
