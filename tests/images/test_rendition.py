"""What may be asked of a picture, in words."""

import PIL
import pytest

from app.images.render import FORMATS
from app.images.rendition import READABLE_TYPES, Rendition, made_by
from app.images.wire import Outcome, answer_head, read_answer_head, read_request_head, request_head
from app.storage.media import media_type


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("cats/tom.png", "cats/tom.jpg"),
        ("cats.old/tom", "cats.old/tom.jpg"),
        ("tom.v2.tiff", "tom.v2.jpg"),
        ("cats/.hidden", "cats/.hidden.jpg"),
        ("cats/", "cats/.jpg"),
    ],
)
def test_a_rendition_is_named_as_what_it_is(key: str, named: str) -> None:
    assert Rendition(1, 1, "jpeg").key_of(key) == named


def test_each_rendition_of_a_picture_has_a_name_of_its_own() -> None:
    sides = (None, 1, 11, 4096)
    renditions = [
        Rendition(width, height, form) for width in sides for height in sides for form in ("jpeg", "webp")
    ]
    assert len({one.name for one in renditions}) == len(renditions)
    for one in renditions:
        assert read_request_head(request_head(one, 64 * 1024 * 1024)) == (one, 64 * 1024 * 1024)


def test_what_makes_renditions_is_named_with_its_library() -> None:
    assert made_by().partition("-")[2] == PIL.__version__


def test_an_answer_that_is_none_is_refused() -> None:
    assert read_answer_head(answer_head(Outcome.TOO_LARGE, 5)) == (Outcome.TOO_LARGE, 5)
    with pytest.raises(ValueError, match="9"):
        read_answer_head(b"\x09\0\0\0\0")


def test_every_format_that_is_read_has_a_media_type_that_is_said_to_be_readable() -> None:
    endings = {"JPEG2000": "jp2", "PPM": "pgm"}
    for form in FORMATS:
        assert form is not None
        assert media_type(None, f"a.{endings.get(form, form.lower())}").content_type in READABLE_TYPES
