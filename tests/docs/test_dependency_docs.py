"""`docs/dependencies.md` has a line for each direct dependency, and for nothing else."""

import json
import re
import tomllib
from typing import Any

from tests.docs.markdown import DOCS, ROOT, section, table_rows

TEXT = (DOCS / "dependencies.md").read_text()


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def names(requirements: list[Any]) -> set[str]:
    """Package names of requirements; `include-group` tables name groups that stand for themselves."""
    texts = [text for text in requirements if isinstance(text, str)]
    return {re.match(r"[A-Za-z0-9._-]+", text)[0].lower() for text in texts}  # type: ignore[index]


def explained(title: str) -> set[str]:
    return {cells[0].strip("`") for cells in table_rows(section(TEXT, title))}


def test_runtime_dependencies_are_explained() -> None:
    assert explained("The service") == names(project()["project"]["dependencies"])


def test_embedded_dependencies_are_explained() -> None:
    extra = project()["project"]["optional-dependencies"]
    assert set(extra) == {"embedded"}
    assert explained("What `framegate demo` and the embedded database start") == names(extra["embedded"])


def test_development_dependencies_are_explained() -> None:
    groups = project()["dependency-groups"]
    assert set(groups) == {"build", "dev"}
    assert explained("Building") == names(groups["build"])
    assert explained("Tests and checks") == names(groups["dev"])


def test_node_packages_are_explained() -> None:
    package = json.loads((ROOT / "tests/node/package.json").read_text())
    assert explained("Node packages of the tests") == set(package["dependencies"])


def test_every_row_says_why() -> None:
    assert all(len(cells) == 3 for cells in table_rows(TEXT))
    assert [cells[0] for cells in table_rows(TEXT) if not any(cells[1:])] == []
