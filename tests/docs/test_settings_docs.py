"""`docs/settings.md` names every setting with its true default, and its examples are accepted."""

import re
from pathlib import Path

import pytest

from app.settings import PREFIX, Settings
from tests.docs.markdown import DOCS, ROOT, documents, table_rows

TEXT = (DOCS / "settings.md").read_text()
ROWS = {cells[0].strip("`"): cells[1] for cells in table_rows(TEXT)}
EXAMPLES = dict(re.findall(rf"^({PREFIX}\w+)=(.+)$", TEXT, re.MULTILINE))


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)


def read(monkeypatch: pytest.MonkeyPatch, variable: str, text: str) -> object:
    monkeypatch.setenv(variable, text)
    return getattr(Settings.read(_env_file=None), variable.removeprefix(PREFIX).lower())


def test_every_setting_has_a_row_and_an_example_and_none_is_stale() -> None:
    variables = {PREFIX + name.upper() for name in Settings.model_fields}
    assert set(ROWS) == variables
    assert set(EXAMPLES) == variables


@pytest.mark.parametrize("variable", ROWS)
def test_default_is_the_true_one(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    default = Settings.model_fields[variable.removeprefix(PREFIX).lower()].default
    match ROWS[variable]:
        case "unset":
            assert default is None
        case "empty":
            assert default == ()
        case cell:
            assert read(monkeypatch, variable, cell.strip("`")) == default


@pytest.mark.parametrize("variable", [name for name, text in EXAMPLES.items() if "<" not in text])
def test_example_is_accepted_and_is_no_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    text = EXAMPLES[variable]
    if variable.endswith("_FILE"):
        text = str(tmp_path / "authorities.pem")
        Path(text).touch()
    default = Settings.model_fields[variable.removeprefix(PREFIX).lower()].default
    assert read(monkeypatch, variable, text) != default


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_name_only_settings_that_exist(document: Path) -> None:
    named = set(re.findall(rf"\b{PREFIX}([A-Z][A-Z_]*[A-Z])\b", document.read_text()))
    assert {name.lower() for name in named} <= set(Settings.model_fields)
