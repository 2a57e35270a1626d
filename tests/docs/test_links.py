"""Every relative link of README and of `docs/` leads somewhere."""

from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.markdown import ROOT, anchors, documents, links


def broken(document: Path) -> list[str]:
    return [link for link in links(document.read_text()) if not leads_somewhere(document, link)]


def leads_somewhere(document: Path, link: str) -> bool:
    if link.startswith(("https://", "http://", "mailto:")):
        return True
    path, _, fragment = unquote(link).partition("#")
    target = (document.parent / path).resolve() if path else document
    if not target.exists() or (path and not target.is_relative_to(ROOT)):
        return False
    return not fragment or (target.suffix == ".md" and fragment in anchors(target.read_text()))


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(document: Path) -> None:
    assert broken(document) == []


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_link_leaves_the_project_by_its_path(document: Path) -> None:
    assert not [link for link in links(document.read_text()) if link.startswith(("/", "file:"))]


def test_every_document_is_reached_from_the_readme() -> None:
    reached, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        document = waiting.pop()
        if document in reached or document.suffix != ".md" or not document.is_file():
            continue
        reached.add(document)
        targets = [link.partition("#")[0] for link in links(document.read_text()) if "://" not in link]
        waiting += [(document.parent / target).resolve() for target in targets if target]
    assert set(documents()) - reached == set()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see [x](gone.md)", ["gone.md"]),
        ("see [x](#nothing)", ["#nothing"]),
        ("see [x](#some-heading)\n\n## Some `heading`", []),
        ("```\n[x](gone.md)\n```", []),
        ("`[x](gone.md)`", []),
        ("[x](https://example.org/gone.md)", []),
        ("[`a[0]`](gone.md#x)", ["gone.md#x"]),
        ("![picture](gone.png)", ["gone.png"]),
    ],
)
def test_a_broken_link_is_found(tmp_path: Path, text: str, expected: list[str]) -> None:
    document = tmp_path / "a.md"
    document.write_text(text)
    assert broken(document) == expected
