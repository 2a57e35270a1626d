"""What the documents offer for pasting is at least well formed, and what is posted fits the API's own bodies."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from app.api.schemas.access import SignedUrlBody
from app.api.schemas.manifests import ManifestBody
from app.api.schemas.sources import S3Source
from app.api.schemas.storages import StorageBody, StoragePatch
from tests.docs.markdown import ROOT, documents

SHORTENED_SAS = "sv=...&sp=rl&se=...&sig=..."
SAS = "sv=2025-05-05&sp=rl&se=2099-01-01T00:00:00Z&sig=c2lnbmF0dXJl"


def fences(language: str) -> list[Any]:
    found = []
    for document in documents():
        name = str(document.relative_to(ROOT))
        blocks = re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)
        found += [pytest.param(block, id=f"{name}:{index}") for index, block in enumerate(blocks)]
    assert found
    return found


def posted_bodies() -> list[Any]:
    bodies = []
    for fence in fences("sh"):
        for number, body in enumerate(
            re.findall(r"-d '(\{.*?\})'$", fence.values[0], re.MULTILINE | re.DOTALL)
        ):
            bodies.append(pytest.param(body, id=f"{fence.id}:{number}"))
    assert bodies
    return bodies


def schema_of(body: dict[str, Any]) -> type[BaseModel]:
    match body:
        case {"display_name": _}:
            return StorageBody
        case {"source": _} | {"delivery": _}:
            return StoragePatch
        case {"key": _}:
            return ManifestBody
        case _:
            return SignedUrlBody


@pytest.mark.parametrize("block", fences("sh"))
def test_shell_lines_parse(block: str) -> None:
    done = subprocess.run(["sh", "-n"], input=block, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", fences("python"))
def test_python_compiles(block: str) -> None:
    compile(block, "example.py", "exec")


@pytest.mark.parametrize("block", fences("json"))
def test_json_is_json(block: str) -> None:
    json.loads(block)


@pytest.mark.parametrize("body", posted_bodies())
def test_posted_body_fits_the_api(body: str) -> None:
    text = body.replace(SHORTENED_SAS, SAS)
    schema_of(json.loads(text)).model_validate_json(text)


def test_s3_source_of_a_public_bucket_fits_the_api() -> None:
    text = (ROOT / "docs/howto/attach-s3.md").read_text()
    found = re.search(r"^(\{\"provider\".*\})$", text, re.MULTILINE)
    assert found is not None
    assert S3Source.model_validate_json(found[1]).auth.type == "anonymous"


def test_paths_of_the_code_that_documents_name_exist() -> None:
    named = {
        (document, path)
        for document in documents()
        for path in re.findall(
            r"`((?:app|tests|script|migrations|docs|bench|requirements)/[\w./-]+)`", document.read_text()
        )
    }
    assert named
    gone = {path for _, path in named if not (ROOT / path).exists() and not _is_pattern(path)}
    assert gone == set()


def _is_pattern(path: str) -> bool:
    return Path(path).stem.isupper()
