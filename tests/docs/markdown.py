"""What the tests need to read of a Markdown file: headings, tables, links; fenced code is none of them."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,}).*?^ {0,3}\1`*\s*?$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#{1,6}) +(.+?) *#*$", re.MULTILINE)
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(<?([^()\s<>]+)>?(?: +\"[^\"]*\")?\)")
_CODE_SPAN = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)


def documents() -> list[Path]:
    """Every document that a reader can open, by path."""
    return sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])


def prose(text: str) -> str:
    """A document without its fenced code, line by line as it was otherwise."""
    return _FENCE.sub("", text)


def headings(text: str, level: int | None = None) -> list[str]:
    """The headings of a document, of one level or of all."""
    found = _HEADING.findall(prose(text))
    return [title for marks, title in found if level is None or len(marks) == level]


def anchors(text: str) -> set[str]:
    """The fragments that a link into a document may name, as GitHub makes them."""
    slugs = [_slug(title) for title in headings(text)]
    seen: Counter[str] = Counter()
    made = set()
    for slug in slugs:
        made.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return made


def links(text: str) -> list[str]:
    """The targets of every link and picture."""
    return _LINK.findall(_CODE_SPAN.sub("", prose(text)))


def section(text: str, title: str) -> str:
    """What stands below a heading of level 2, up to the next one."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"there is no heading {title!r}"
    return found[1]


def table_rows(text: str) -> Iterator[list[str]]:
    """The cells of every table row whose first cell is code, such as a name."""
    for line in prose(text).splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and cells[0].startswith("`"):
            yield cells


def _slug(title: str) -> str:
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
