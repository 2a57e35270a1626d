"""Rendering one picture: its size, its turn, its colours; and what is no picture, or too large a one."""

import struct
import zlib
from io import BytesIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from app.errors import NotAPictureError, PictureTooLargeError
from app.images import render as subject
from app.images.render import render
from app.images.rendition import PictureFormat, Rendition
from tests.images.pictures import (
    BLUE,
    GREEN,
    RED,
    WHITE,
    alike,
    corners,
    decoded,
    encoded,
    profile,
    seen_in_corners,
)

SMALL = Rendition(40, 40)
FREE = Rendition(None, None)


def shows(body: bytes, *colours: tuple[int, ...], within: int = 14) -> bool:
    """Whether the four quarters of a picture have these colours."""
    return all(
        alike(*pair, within=within) for pair in zip(seen_in_corners(decoded(body)), colours, strict=True)
    )


@pytest.mark.parametrize(
    ("box", "size"),
    [
        ((40, 40), (40, 30)),
        ((40, None), (40, 30)),
        ((None, 15), (20, 15)),
        ((8, 4096), (8, 6)),
        ((4096, 3), (4, 3)),
        ((1, 1), (1, 1)),
        ((80, 60), (80, 60)),
        ((81, None), (80, 60)),
        ((4096, 4096), (80, 60)),
        ((None, None), (80, 60)),
    ],
)
def test_a_picture_keeps_its_shape_within_the_box_and_is_never_enlarged(box: Any, size: Any) -> None:
    for picture in (encoded(corners()), encoded(corners(), "PNG")):
        small = decoded(render(picture, Rendition(*box)))
        assert (small.format, small.size) == ("JPEG", size)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, (RED, GREEN, BLUE, WHITE)),
        (2, (GREEN, RED, WHITE, BLUE)),
        (3, (WHITE, BLUE, GREEN, RED)),
        (4, (BLUE, WHITE, RED, GREEN)),
        (5, (RED, BLUE, GREEN, WHITE)),
        (6, (BLUE, RED, WHITE, GREEN)),
        (7, (WHITE, GREEN, BLUE, RED)),
        (8, (GREEN, WHITE, RED, BLUE)),
    ],
)
def test_a_picture_is_turned_upright(form: str, orientation: int, upright: Any) -> None:
    picture = encoded(corners(80, 60), form, orientation=orientation)
    for wanted, longer in ((Rendition(40, None), None), (Rendition(40, 40), 40), (FREE, 80)):
        body = render(picture, wanted)
        small = decoded(body)
        assert shows(body, *upright), (orientation, seen_in_corners(small))
        assert (small.width < small.height) == (orientation >= 5)
        assert max(small.size) == (longer or (40 if orientation < 5 else 53))
        assert small.getexif().get(0x0112) is None


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none_turns_nothing(orientation: int) -> None:
    assert shows(render(encoded(corners(), orientation=orientation), SMALL), RED, GREEN, BLUE, WHITE)


def test_damaged_metadata_do_not_keep_a_picture_from_being_shown() -> None:
    picture = encoded(corners(), exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff broken")
    assert shows(render(picture, SMALL), RED, GREEN, BLUE, WHITE)


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    drafts: list[Any] = []
    inner = Image.core.jpeg_decoder  # type: ignore[attr-defined]

    def jpeg_decoder(*arguments: Any) -> Any:
        drafts.append(arguments)
        return inner(*arguments)

    monkeypatch.setattr(Image.core, "jpeg_decoder", jpeg_decoder)
    small = decoded(render(encoded(corners(1600, 1200)), Rendition(50, 50)))
    assert small.size == (50, 38)
    assert drafts[0][3] == 8


MODES: dict[str, tuple[str, dict[str, Any]]] = {
    "RGB": ("JPEG", {}),
    "L": ("JPEG", {}),
    "CMYK": ("JPEG", {}),
    "1": ("PNG", {}),
    "P": ("PNG", {}),
    "LA": ("PNG", {}),
    "RGBA": ("PNG", {}),
    "I;16": ("PNG", {}),
    "I": ("TIFF", {}),
    "F": ("TIFF", {}),
    "LAB": ("TIFF", {}),
    "YCbCr": ("TIFF", {"compression": "raw"}),
}


def in_mode(mode: str) -> Image.Image:
    """The four corners in a mode; gray ones from white to black where it has no colours."""
    image = corners()
    if mode == "P":
        return image.convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    if mode == "1":
        return image.convert("L").point(lambda value: 255 if value > 128 else 0).convert("1")
    if mode == "I;16":
        return image.convert("I").point(lambda value: value * 257).convert("I;16")
    if mode == "I":
        return image.convert("I").point(lambda value: value * 1_000_000)
    if mode == "F":
        return image.convert("F").point(lambda value: value / 1000 - 3)
    if mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.applyTransform(image, ImageCms.buildTransform(srgb, lab, "RGB", "LAB")) or image
    return image.convert(mode)


@pytest.mark.parametrize("form", ["jpeg", "webp"])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_shown_as_it_looks(mode: str, form: PictureFormat) -> None:
    kind, more = MODES[mode]
    body = render(encoded(in_mode(mode), kind, **more), Rendition(40, 40, form))
    small = decoded(body)
    assert (small.format, small.size) == (form.upper(), (40, 30))
    if mode in {"RGB", "P", "RGBA", "LAB", "YCbCr"}:
        assert shows(body, RED, GREEN, BLUE, WHITE, within=24)
    elif mode == "CMYK":
        assert shows(body, RED, GREEN, BLUE, WHITE, within=40)
    else:
        brightness = [pixel[0] for pixel in seen_in_corners(small)]
        assert brightness[3] == max(brightness) > 230
        assert brightness[2] == min(brightness) < 60
        assert {len(set(pixel)) for pixel in seen_in_corners(small)} <= {1, 2, 3}


def transparent() -> Image.Image:
    image = corners().convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 40, 30))
    return image


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_stays_so_in_webp_and_is_white_in_jpeg(mode: str) -> None:
    image = transparent() if mode != "P" else transparent().quantize(16)
    picture = encoded(image.convert(mode), "PNG")
    kept = decoded(render(picture, Rendition(40, 40, "webp")))
    assert kept.mode == "RGBA"
    alpha = kept.getchannel("A")
    assert (alpha.getpixel((5, 5)), alpha.getpixel((35, 25))) == (0, 255)
    flat = decoded(render(picture, Rendition(40, 40, "jpeg")))
    assert flat.mode == "RGB"
    assert alike(seen_in_corners(flat)[0], (255, 255, 255))


def test_a_transparent_colour_of_a_png_without_alpha_is_transparent() -> None:
    picture = encoded(corners(), "PNG", transparency=RED)
    assert alike(seen_in_corners(decoded(render(picture, SMALL)))[0], (255, 255, 255))


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_stands_for_a_moving_picture(form: str) -> None:
    red, blue = (Image.new("RGB", (80, 60), colour) for colour in (RED, BLUE))
    body = render(encoded(red, form, save_all=True, append_images=[blue]), SMALL)
    assert shows(body, RED, RED, RED, RED, within=24)


@pytest.mark.parametrize("form", ["BMP", "PPM", "AVIF", "JPEG2000", "ICO"])
def test_further_formats_are_read(form: str) -> None:
    more = {"sizes": [(64, 64)]} if form == "ICO" else {}
    body = render(encoded(corners(64, 64), form, **more), Rendition(32, 32))
    assert shows(body, RED, GREEN, BLUE, WHITE, within=30)


def swapped() -> bytes:
    """A profile whose red and green have changed places, so that only who applies it sees the true colours."""
    blob = bytearray(profile())
    count = struct.unpack_from(">I", blob, 128)[0]
    places = {bytes(blob[at : at + 4]): at for at in range(132, 132 + 12 * count, 12)}
    red, green = places[b"rXYZ"] + 4, places[b"gXYZ"] + 4
    blob[red : red + 8], blob[green : green + 8] = blob[green : green + 8], blob[red : red + 8]
    return bytes(blob)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_colours_are_turned_to_srgb_by_the_profile_and_the_profile_is_left_behind(form: str) -> None:
    plain = encoded(corners(), form, icc_profile=profile())
    assert shows(render(plain, SMALL), RED, GREEN, BLUE, WHITE, within=20)
    body = render(encoded(corners(), form, icc_profile=swapped()), SMALL)
    first, second = seen_in_corners(decoded(body))[:2]
    assert first[1] > 150 > first[0]
    assert second[0] > 150 > second[1]
    assert "icc_profile" not in decoded(body).info


def test_transparency_survives_the_way_to_srgb() -> None:
    picture = encoded(transparent(), "PNG", icc_profile=swapped())
    kept = decoded(render(picture, Rendition(40, 40, "webp")))
    assert kept.getchannel("A").getpixel((5, 5)) == 0
    red, green, *_ = seen_in_corners(kept)[1]
    assert red > green


@pytest.mark.parametrize("odd", [b"no profile", profile()[:200], profile("LAB"), bytes(2_000_000)])
def test_a_profile_that_cannot_be_used_is_dropped(odd: bytes) -> None:
    for mode in ("RGB", "L", "CMYK"):
        picture = encoded(corners().convert(mode), "TIFF", icc_profile=odd)
        assert decoded(render(picture, SMALL)).size == (40, 30)


def test_metadata_are_left_behind() -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    for form in ("JPEG", "PNG", "WEBP"):
        picture = encoded(corners(), form, exif=exif, comment=b"where I live", dpi=(300, 300))
        for wanted in (SMALL, Rendition(40, 40, "webp"), FREE):
            assert b"where I live" not in render(picture, wanted)


def test_the_same_picture_gives_the_same_bytes() -> None:
    picture = encoded(corners(800, 600))
    for form in ("jpeg", "webp"):
        assert render(picture, Rendition(100, 100, form)) == render(picture, Rendition(100, 100, form))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "size", [(100_000, 100_000), (10_001, 10_000), (100_000_001, 1), (2**31 - 1, 2**31 - 1)]
)
def test_a_picture_that_claims_too_many_pixels_is_never_decoded(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(self: Image.Image) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(Image.Image, "load", load)
    with pytest.raises((PictureTooLargeError, NotAPictureError)) as caught:
        render(bomb(*size), SMALL)
    if size[0] < 2**31 - 1:
        assert isinstance(caught.value, PictureTooLargeError)
        assert "100 million pixels" in caught.value.detail


def test_a_result_that_its_format_cannot_hold_is_refused() -> None:
    wide = encoded(Image.new("L", (16_384, 2)), "PNG")
    assert decoded(render(wide, FREE)).size == (16_384, 2)
    with pytest.raises(PictureTooLargeError, match="16383"):
        render(wide, Rendition(None, None, "webp"))
    assert decoded(render(wide, Rendition(4096, None, "webp"))).size == (4096, 1)


def test_a_result_of_too_many_bytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MOST_RENDITION_BYTES", 300)
    with pytest.raises(PictureTooLargeError):
        render(encoded(Image.effect_noise((80, 60), 90)), FREE)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000"])
def test_a_truncated_picture_is_said_to_be_one(form: str) -> None:
    whole = encoded(Image.effect_noise((200, 160), 60).convert("RGB"), form)
    for kept in (1, 2):
        with pytest.raises(NotAPictureError):
            render(whole[: len(whole) * kept // 3], SMALL)


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\xd8\xff", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0", b"{}"],
)
def test_what_is_no_picture_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(NotAPictureError):
        render(body, SMALL)


GOOD = [
    encoded(corners(20, 16), form, **({"orientation": 6} if form in {"JPEG", "PNG", "TIFF", "WEBP"} else {}))
    for form in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "ICO")
]


def rendered_or_refused(body: bytes) -> None:
    """Check the one promise that holds for any bytes."""
    try:
        small = render(body, Rendition(8, 8))
    except (NotAPictureError, PictureTooLargeError):
        return
    assert max(Image.open(BytesIO(small)).size) <= 8


@given(st.binary(max_size=300))
def test_any_bytes_give_a_rendition_or_a_refusal(body: bytes) -> None:
    rendered_or_refused(body)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=300)
@given(st.sampled_from(GOOD), st.data())
def test_any_damage_to_a_picture_gives_a_rendition_or_a_refusal(good: bytes, data: st.DataObject) -> None:
    body = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    rendered_or_refused(bytes(body[: data.draw(st.integers(1, len(body)))]))
