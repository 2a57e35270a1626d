"""The manifest of a folder, of pictures that the test draws."""

import hashlib
import json
import os
import zlib
from pathlib import Path

import pytest
from natsort import os_sorted
from PIL import ExifTags, Image

from app.manifests.folder import Sorting, build
from app.manifests.reader import ManifestReader


def draw(
    file: Path, size: tuple[int, int] = (6, 4), mode: str = "RGB", orientation: int | None = None
) -> None:
    """Draw a picture, in the format that its name says."""
    file.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    Image.new(mode, size, 7).save(file, exif=exif)


def items(text: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()[2:]]


def test_a_picture_is_described_as_cvat_does(tmp_path: Path) -> None:
    draw(tmp_path / "a" / "img.10.PNG", mode="L")
    digest = hashlib.md5(bytes([7]) * 24).hexdigest()
    assert build(tmp_path).text == (
        b'{"version":"1.1"}\n{"type":"images"}\n'
        b'{"name":"a/img.10","extension":".PNG","width":6,"height":4,'
        b'"meta":{"related_images":[]},"checksum":"' + digest.encode() + b'"}\n'
    )


@pytest.mark.parametrize(
    ("orientation", "size"), [(1, (6, 4)), (3, (6, 4)), (5, (4, 6)), (6, (4, 6)), (8, (4, 6))]
)
def test_the_size_is_that_of_the_picture_as_shown(
    tmp_path: Path, orientation: int, size: tuple[int, int]
) -> None:
    draw(tmp_path / "x.jpg", orientation=orientation)
    (item,) = items(build(tmp_path).text)
    assert (item["width"], item["height"]) == size


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "I;16"])
def test_the_checksum_is_that_of_the_files_own_pixels(tmp_path: Path, mode: str) -> None:
    draw(tmp_path / "x.png", mode=mode)
    with Image.open(tmp_path / "x.png") as image:
        assert image.mode == mode
        digest = hashlib.md5(image.tobytes()).hexdigest()
    assert items(build(tmp_path).text)[0]["checksum"] == digest


def test_without_checksums_no_pixel_is_read(tmp_path: Path) -> None:
    draw(tmp_path / "x.jpg", size=(500, 400))
    (tmp_path / "x.jpg").write_bytes((tmp_path / "x.jpg").read_bytes()[:-500])
    assert items(build(tmp_path, checksum=False).text) == [
        {"name": "x", "extension": ".jpg", "width": 500, "height": 400, "meta": {"related_images": []}}
    ]
    assert len(build(tmp_path).skipped) == 1


NAMES = ["B/img2", "B/img10", "a/img10", "a/img2", "a/Img1", "a", "Z", "img 1", "ä", "a.b/1", "10", "9"]


@pytest.mark.parametrize("sorting", ["lexicographical", "natural"])
def test_pictures_stand_in_the_order_asked_for(tmp_path: Path, sorting: Sorting) -> None:
    for name in NAMES:
        draw(tmp_path / f"{name}.png", size=(1, 1))
    absolute = [f"{tmp_path}/{name}.png" for name in NAMES]
    expected = sorted(absolute) if sorting == "lexicographical" else os_sorted(absolute)
    named = [f"{tmp_path}/{item['name']}.png" for item in items(build(tmp_path, sorting=sorting).text)]
    assert named == expected


def test_what_is_no_picture_is_left_out(tmp_path: Path) -> None:
    draw(tmp_path / "x.png")
    for name in ("notes.txt", "page.html", "drawing.svg", "manifest.jsonl", "x.png.gz"):
        (tmp_path / name).write_bytes(b"<svg/>")
    manifest = build(tmp_path)
    assert [str(path) for path in manifest.paths] == ["x.png"]
    assert manifest.skipped == []


def test_pictures_that_cannot_be_read_are_skipped_with_a_reason(tmp_path: Path) -> None:
    draw(tmp_path / "good.png")
    draw(tmp_path / "cut.png", size=(300, 300))
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-40])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "lie.jpg").write_text("no picture")
    draw(tmp_path / "back\\slash.png")
    (tmp_path / os.fsdecode(b"broken\xff.png")).write_bytes((tmp_path / "good.png").read_bytes())
    manifest = build(tmp_path)
    assert [item["name"] for item in items(manifest.text)] == ["good"]
    assert [str(path) for path in manifest.paths] == ["good.png"]
    skipped = {found.path: found.reason for found in manifest.skipped}
    assert set(skipped) == {"cut.png", "empty.jpg", "lie.jpg", "'back\\\\slash.png'", "'broken\\udcff.png'"}
    assert skipped["'back\\\\slash.png'"] == "The name has a backslash."
    assert all(skipped.values())


def test_a_picture_too_large_to_be_one_is_skipped(tmp_path: Path) -> None:
    draw(tmp_path / "bomb.png", size=(1, 1), mode="1")
    head = bytearray((tmp_path / "bomb.png").read_bytes())
    head[16:24] = (100_000).to_bytes(4) * 2
    head[29:33] = zlib.crc32(head[12:29]).to_bytes(4)
    (tmp_path / "bomb.png").write_bytes(head)
    assert [found.path for found in build(tmp_path).skipped] == ["bomb.png"]


def test_related_pictures_belong_to_their_own_and_are_no_frames(tmp_path: Path) -> None:
    for name in ("a/x.png", "a/related_images/x_png/2.png", "a/related_images/x_png/1.jpg", "a/y.png"):
        draw(tmp_path / name)
    manifest = build(tmp_path)
    assert [(item["name"], item["meta"]) for item in items(manifest.text)] == [
        ("a/x", {"related_images": ["a/related_images/x_png/1.jpg", "a/related_images/x_png/2.png"]}),
        ("a/y", {"related_images": []}),
    ]
    assert len(manifest.paths) == 4


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    draw(tmp_path / "real" / "x.png")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    assert len(build(tmp_path).paths) == 1


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        build(tmp_path / "nowhere")


def test_the_reader_takes_what_is_built(tmp_path: Path) -> None:
    for name in NAMES:
        draw(tmp_path / f"{name}.png")
    manifest = build(tmp_path)
    reader = ManifestReader("manifest.jsonl")
    keys = [item.key for item in [*reader.feed(manifest.text), *reader.finish()]]
    assert sorted(keys) == sorted(str(path) for path in manifest.paths)
    assert reader.problem_count == 0
