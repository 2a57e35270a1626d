"""What an object is served as: by the table, never by its bytes."""

import pytest

from app.storage.media import UNKNOWN, MediaType, media_type


@pytest.mark.parametrize(
    ("stored", "key", "content_type"),
    [
        ("image/jpeg", "x", "image/jpeg"),
        ("IMAGE/JPEG ", "x.png", "image/jpeg"),
        ("image/jpg", "x", "image/jpeg"),
        ("image/jpeg; charset=utf-8; x=y", "x", "image/jpeg"),
        ("video/mp4", "x", "video/mp4"),
        ("application/pdf", "x", "application/pdf"),
        ("text/plain", "x", "text/plain"),
        ("text/plain; charset=UTF-8", "x", "text/plain; charset=utf-8"),
        ('text/plain;charset="iso-8859-1";format=flowed', "x", "text/plain; charset=iso-8859-1"),
        ("text/plain; charset=a b", "x", "text/plain"),
        ("application/json; charset=utf-8", "x", "application/json"),
        ("application/zip", "x", "application/zip"),
        ("binary/octet-stream", "a/b.JPG", "image/jpeg"),
        ("application/octet-stream", "cloud.pcd", "application/x-pcd"),
        (None, "manifest.jsonl", "application/x-ndjson"),
        (None, "é.webp", "image/webp"),
        ("", "x.png", "image/png"),
        ("garbage", "x.tar.png", "image/png"),
    ],
)
def test_a_listed_type_is_shown_in_place(stored: str | None, key: str, content_type: str) -> None:
    assert media_type(stored, key) == MediaType(content_type, inline=True)


@pytest.mark.parametrize(
    ("stored", "key"),
    [
        (None, "x"),
        (None, "x."),
        (None, ".jpg/x"),
        (None, "dir.png/x"),
        (None, "page.html"),
        (None, "page.xhtml"),
        (None, "picture.svg"),
        (None, "feed.xml"),
        ("application/octet-stream", "x.bin"),
        ("text/html", "x"),
        ("text/html; charset=utf-8", "x.jpg"),
        ("Text/HTML", "x.jpg"),
        ("image/svg+xml", "x.png"),
        ("application/xml", "x.png"),
        ("text/xml", "x.png"),
        ("application/xhtml+xml", "x.png"),
        ("application/atom+xml", "x.png"),
        ("application/javascript", "x.js"),
        ("image/jpeg\r\nX: y", "x"),
    ],
)
def test_anything_else_is_an_attachment_of_no_particular_type(stored: str | None, key: str) -> None:
    assert media_type(stored, key) == UNKNOWN == MediaType("application/octet-stream", inline=False)
