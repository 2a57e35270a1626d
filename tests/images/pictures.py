"""Pictures that tests draw: small, of every mode, with what cameras write beside the pixels."""

from io import BytesIO
from typing import Any

from PIL import Image, ImageCms

RED, GREEN, BLUE, WHITE = (220, 30, 30), (30, 200, 30), (30, 30, 220), (250, 250, 250)
ORIENTATION = 0x0112


def corners(width: int = 80, height: int = 60) -> Image.Image:
    """A picture whose corners differ: red, green; blue, white."""
    image = Image.new("RGB", (width, height))
    half = (width // 2, height // 2)
    for place, colour in (((0, 0), RED), ((half[0], 0), GREEN), ((0, half[1]), BLUE), (half, WHITE)):
        image.paste(colour, (*place, place[0] + half[0], place[1] + half[1]))
    return image


def encoded(image: Image.Image, form: str = "JPEG", **more: Any) -> bytes:
    """The bytes of a picture; `orientation` is written as a camera would."""
    orientation = more.pop("orientation", None)
    if orientation is not None:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        more["exif"] = exif
    written = BytesIO()
    if form == "JPEG":
        more = {"quality": 95, "subsampling": 0} | more
    image.save(written, form, **more)
    return written.getvalue()


def decoded(body: bytes) -> Image.Image:
    """The picture of some bytes, loaded."""
    image = Image.open(BytesIO(body))
    image.load()
    return image


def seen_in_corners(image: Image.Image) -> list[tuple[int, ...]]:
    """The colours in the middle of each quarter: top left, top right, bottom left, bottom right."""
    rgb = image.convert("RGB")
    width, height = rgb.size
    places = [(x, y) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    pixels = [rgb.getpixel(place) for place in places]
    return [pixel for pixel in pixels if isinstance(pixel, tuple)]


def alike(one: tuple[int, ...], other: tuple[int, ...], within: int = 12) -> bool:
    """Whether two colours look the same, as far as lossy formats keep them."""
    return all(abs(a - b) <= within for a, b in zip(one, other, strict=True))


def profile(name: Any = "sRGB") -> bytes:
    """A colour profile's bytes."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()
