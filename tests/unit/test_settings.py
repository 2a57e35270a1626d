"""Settings: a wrong value is one line that names the variable, its fault and an example."""

import base64
import re

import pytest

from app.errors import CommandError
from app.settings import PREFIX, Settings

KEY = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://h/d"),
        ("DATABASE_URL", "postgresql://h:port/d"),
        ("SECRET_KEYS", "k1:short"),
        ("SECRET_KEYS", "k1"),
        ("SECRET_KEYS", f"k1:{KEY},k1:{KEY}"),
        ("PUBLIC_URL", "frames.example.org"),
        ("TRUSTED_PROXIES", "10.0.0.0/99"),
        ("CORS_ORIGINS", "https://a.example/path"),
        ("CA_FILE", "/no/such/file"),
        ("UPSTREAM_CONCURRENCY", "0"),
        ("UPSTREAM_CONCURRENCY", "many"),
        ("CONNECT_TIMEOUT_S", "-1"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("INLINE_JOBS", "perhaps"),
        ("MAX_MANIFEST_BYTES", "0"),
    ],
)
def test_a_wrong_value_is_named_with_an_example(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(CommandError) as caught:
        Settings.read(_env_file=None)
    text = str(caught.value)
    assert re.match(rf"{PREFIX}{name}: .+ Example: {PREFIX}{name}=.+", text), text
    assert "\n" not in text
    assert KEY not in text


def test_lists_are_split_and_defaults_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMEGATE_ALLOWED_PRIVATE_ENDPOINTS", " minio:9000, 10.0.0.0/8 ,")
    settings = Settings.read(_env_file=None)
    assert settings.allowed_private_endpoints == ("minio:9000", "10.0.0.0/8")
    assert settings.trusted_proxies == settings.cors_origins == ()
    assert settings.database_url is None
    assert settings.max_line_bytes == 1024**2
