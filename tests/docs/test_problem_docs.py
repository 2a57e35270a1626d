"""`docs/problems.md` explains every problem that an answer can carry, and no other."""

import re
from collections import Counter

import pytest

from app.api.problems import _MISSING_SLUGS, HOST_NOT_ALLOWED, HTTP_PROBLEMS, PROBLEMS, all_slugs
from app.errors import MissingError
from tests.docs.markdown import DOCS, headings, section

TEXT = (DOCS / "problems.md").read_text()
KINDS = (*PROBLEMS.values(), *HTTP_PROBLEMS.values(), HOST_NOT_ALLOWED)
STATUSES = {kind.slug: kind.status for kind in KINDS} | dict.fromkeys(
    _MISSING_SLUGS.values(), PROBLEMS[MissingError].status
)


def test_every_problem_has_one_heading_and_no_heading_is_stale() -> None:
    assert sorted(headings(TEXT, 2)) == list(all_slugs())


def test_problems_stand_in_alphabetical_order() -> None:
    assert headings(TEXT, 2) == sorted(headings(TEXT, 2))


def test_one_kind_of_problem_has_one_status() -> None:
    several = Counter(slug for slug, _ in {(kind.slug, kind.status) for kind in KINDS})
    assert not [slug for slug, count in several.items() if count > 1]


@pytest.mark.parametrize("slug", all_slugs())
def test_section_says_status_meaning_extras_and_what_to_do(slug: str) -> None:
    body = section(TEXT, slug)
    labels = re.findall(r"^\* \*\*(.+?):\*\* \S", body, re.MULTILINE)
    assert labels == ["Status", "Meaning", "Extras", "What to do"]
    assert re.findall(r"^\* \*\*Status:\*\* (\d{3})$", body, re.MULTILINE) == [str(STATUSES[slug])]
