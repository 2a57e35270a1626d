"""One frozen Settings, read once from the environment and `.env`; no I/O besides that."""

import base64
import binascii
import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.errors import CommandError

PREFIX = "FRAMEGATE_"
KIB, MIB, GIB = 1024, 1024**2, 1024**3

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class SecretKey:
    """One key that seals credentials: its id, and 32 bytes that no repr shows."""

    id: str
    material: bytes

    def __repr__(self) -> str:
        return f"SecretKey(id={self.id!r})"


CommaList = Annotated[tuple[str, ...], NoDecode]

_EXAMPLES = {
    "database_url": "postgresql://framegate:secret@db.internal/framegate",
    "data_dir": "./.framegate",
    "secret_keys": "k1:<base64 of 32 bytes>",
    "allowed_private_endpoints": "minio.internal:9000,10.0.0.0/8",
    "ca_file": "/etc/ssl/private-ca.pem",
    "public_url": "https://frames.example.org",
    "allowed_hosts": "frames.example.org,localhost",
    "trusted_proxies": "10.0.0.5,192.168.0.0/24",
    "cors_origins": "https://annotate.example.org",
    "rendition_workers": "2",
    "log_level": "info",
    "log_format": "json",
    "inline_jobs": "true",
}


class Settings(BaseSettings):
    """Everything that may differ between two installations; see `docs/settings.md`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    database_url: str | None = Field(default=None, repr=False)
    data_dir: Path = Path("./.framegate")
    secret_keys: Annotated[tuple[SecretKey, ...], NoDecode] = Field(default=(), repr=False)
    allowed_private_endpoints: CommaList = ()
    ca_file: Path | None = None
    public_url: str | None = None
    allowed_hosts: CommaList = LOOPBACK_HOSTS
    trusted_proxies: CommaList = ()
    cors_origins: CommaList = ()
    cache_bytes: int = Field(default=256 * MIB, ge=0)
    cache_max_age_s: float = Field(default=30, ge=0, le=86_400)
    chunk_bytes: int = Field(default=256 * MIB, ge=16 * MIB)
    rendition_workers: int | None = Field(default=None, ge=1, le=256)
    rendition_queue: int = Field(default=256, ge=0, le=100_000)
    upstream_concurrency: int = Field(default=64, ge=1, le=10_000)
    upstream_queue: int = Field(default=1024, ge=0, le=1_000_000)
    connect_timeout_s: float = Field(default=5, gt=0, le=600)
    first_byte_timeout_s: float = Field(default=20, gt=0, le=600)
    idle_timeout_s: float = Field(default=30, gt=0, le=3600)
    max_manifest_bytes: int = Field(default=4 * GIB, ge=1)
    max_line_bytes: int = Field(default=1 * MIB, ge=64)
    max_body_bytes: int = Field(default=1 * MIB, ge=1024)
    send_timeout_s: float = Field(default=60, ge=1, le=3600)
    max_upload_bytes: int = Field(default=5 * GIB, ge=1)
    grace_s: float = Field(default=30, ge=0, le=3600)
    inline_jobs: bool = True
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"

    @field_validator(
        "allowed_private_endpoints", "allowed_hosts", "trusted_proxies", "cors_origins", mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @field_validator("secret_keys", mode="before")
    @classmethod
    def _keys(cls, value: object) -> object:
        return parse_secret_keys(value) if isinstance(value, str) else value

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, value: str | None) -> str | None:
        try:
            fits = not value or _is_postgres_url(value)
        except ValueError:
            fits = False
        if not fits:
            raise ValueError("is no PostgreSQL URL")
        return value or None

    @field_validator("public_url")
    @classmethod
    def _base_url(cls, value: str | None) -> str | None:
        if not value:
            return None
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("is no http(s) base URL")
        return value.rstrip("/")

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for part in value:
            ipaddress.ip_network(part, strict=False)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
                raise ValueError(f"{origin!r} is no origin (scheme://host[:port])")
        return value

    @field_validator("ca_file")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError("is no readable file")
        return value

    @classmethod
    def read(cls, **overrides: object) -> Self:
        """Read the environment and `.env`; raises `CommandError` naming the variable and its fault."""
        try:
            return cls(**overrides)  # type: ignore[arg-type]  # values are checked by pydantic, here
        except ValidationError as error:
            raise CommandError(_one_line(error)) from None


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "?"
    fault = first["msg"].removeprefix("Value error, ")
    default = Settings.model_fields[name].default if name in Settings.model_fields else ""
    return f"{PREFIX}{name.upper()}: {fault}. Example: {PREFIX}{name.upper()}={_EXAMPLES.get(name, default)}"


def _is_postgres_url(text: str) -> bool:
    parts = urlsplit(text)
    return (
        parts.scheme in {"postgres", "postgresql"} and parts.port != 0
    )  # a port that is none raises ValueError


def parse_secret_keys(text: str) -> tuple[SecretKey, ...]:
    """Read a comma list of `id:base64(32 bytes)`, newest first; raises ValueError without quoting it."""
    keys = tuple(_secret_key(part.strip()) for part in text.split(",") if part.strip())
    if len({key.id for key in keys}) != len(keys):
        raise ValueError("two keys have the same id")
    return keys


def _secret_key(text: str) -> SecretKey:
    key_id, separator, encoded = text.partition(":")
    if not separator or not re.fullmatch(r"[A-Za-z0-9._-]{1,32}", key_id):
        raise ValueError("each key is id:base64(32 bytes)")
    try:
        material = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise ValueError(f"the key {key_id!r} is not base64") from None
    if len(material) != 32:
        raise ValueError(f"the key {key_id!r} has {len(material)} bytes, not 32")
    return SecretKey(key_id, material)
