"""The writer: byte for byte what CVAT's own tool writes."""

import pytest

from app.manifests.writer import Picture, split_name, write_images


def test_lines_are_compact_ascii_and_in_the_order_of_the_format() -> None:
    pictures = [
        Picture(
            "a/img_10", ".png", 40, 30, {"related_images": ["a/related_images/img_10_png/c.png"]}, "ae20"
        ),
        Picture("grün", ".JPG"),
    ]
    assert b"".join(write_images(pictures)) == (
        b'{"version":"1.1"}\n'
        b'{"type":"images"}\n'
        b'{"name":"a/img_10","extension":".png","width":40,"height":30,'
        b'"meta":{"related_images":["a/related_images/img_10_png/c.png"]},"checksum":"ae20"}\n'
        b'{"name":"gr\\u00fcn","extension":".JPG"}\n'
    )


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a/b.c/x.tar.GZ", ("a/b.c/x.tar", ".GZ")),
        ("a.b/x", ("a.b/x", "")),
        (".hidden", (".hidden", "")),
        ("a/..x.png", ("a/..x", ".png")),
        ("x.", ("x", ".")),
        ("...", ("...", "")),
    ],
)
def test_the_extension_goes_from_the_last_dot(name: str, parts: tuple[str, str]) -> None:
    assert split_name(name) == parts
