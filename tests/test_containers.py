"""The container files fit the tree: no container engine is needed to find a path that is gone."""

import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[1]


def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text().replace("\\\n", " ")


def copied() -> list[str]:
    lines = re.findall(r"^COPY (?!--from)(.+)$", dockerfile(), re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found


def example() -> dict[str, str]:
    lines = (ROOT / "compose.env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("source", copied())
def test_copied_path_exists_and_is_not_ignored(source: str) -> None:
    assert (ROOT / source).exists()
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert any(source == name or fnmatch(source, f"{name}/*") for name in allowed)


def test_image_installs_as_a_checkout_does_and_runs_without_root() -> None:
    build, final = dockerfile().split("\nFROM ")[1:]
    assert "RUN script/bootstrap --runtime" in build
    assert "\nUSER framegate\n" in final
    assert "/livez" in final


def test_image_and_compose_set_only_settings_that_exist() -> None:
    text = dockerfile() + (ROOT / "compose.yaml").read_text() + "\n".join(example())
    named = set(re.findall(rf"\b{PREFIX}([A-Z_]+)\b", text))
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_service_starts_after_the_migration_and_the_migration_after_the_database() -> None:
    services = compose()["services"]
    assert services["migrate"]["command"] == ["migrate"]
    assert services["migrate"]["depends_on"]["database"]["condition"] == "service_healthy"
    assert services["framegate"]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert services["database"]["image"] == "postgres:18"


def test_secrets_come_from_a_file_that_is_not_versioned() -> None:
    for service in compose()["services"].values():
        assert service["env_file"] == "compose.env"
        assert not any("PASSWORD" in name or "SECRET" in name for name in service.get("environment", {}))
    assert "compose.env" in (ROOT / ".gitignore").read_text().splitlines()
    assert {"POSTGRES_PASSWORD", f"{PREFIX}DATABASE_URL", f"{PREFIX}SECRET_KEYS"} <= set(example())
