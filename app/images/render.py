"""Renders one picture: bytes in, bytes out. Runs in a worker process; nothing else imports it.

Everything that a decoder makes of hostile bytes ends as `NotAPictureError` or `PictureTooLargeError`. Metadata
are left behind: a rendition holds pixels, upright and in sRGB, and nothing of who took it where.
"""

import warnings
from functools import lru_cache
from io import BytesIO
from typing import Final

from PIL import (  # the plugins are named, else Pillow imports all that it has
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    ImageCms,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from app.errors import NotAPictureError, PictureTooLargeError
from app.images.rendition import MOST_RENDITION_BYTES, PictureFormat, Rendition

MOST_PIXELS = 100_000_000
"""What a picture may claim in its head before it is decoded."""
_TOO_MANY_PIXELS = f"Only a picture of at most {MOST_PIXELS // 1_000_000} million pixels is made smaller."
LARGEST_WEBP_SIDE_PX = 16_383
"""The format's own limit (https://developers.google.com/speed/webp/faq)."""

FORMATS = tuple(
    plugin.format
    for plugin in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        WebPImagePlugin.WebPImageFile,
        GifImagePlugin.GifImageFile,
        TiffImagePlugin.TiffImageFile,
        BmpImagePlugin.BmpImageFile,
        PpmImagePlugin.PpmImageFile,
        AvifImagePlugin.AvifImageFile,
        Jpeg2KImagePlugin.Jpeg2KImageFile,
        IcoImagePlugin.IcoImageFile,
    )
)
"""What is decoded. No format that runs a program (EPS) and none without a magic number (TGA)."""

_ORIENTATION: Final = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""From an EXIF orientation to what makes the picture upright."""
_SIDEWAYS = frozenset({5, 6, 7, 8})
_DRAFTED = frozenset({"JPEG", "MPO"})
"""An MPO is a JPEG with further pictures behind it."""
_GAP = 2.0
"""Shrink cheaply to twice the wanted size, then well: hardly to be told from the slow way."""
_MOST_PROFILE_BYTES = 1024 * 1024
_JPEG_QUALITY = 85
_WEBP_QUALITY, _WEBP_EFFORT = 80, 2


def render(picture: bytes, wanted: Rendition) -> bytes:
    """Give a picture's first frame, upright, in sRGB, within the box, in the format.

    Raises `NotAPictureError`, `PictureTooLargeError`, whatever the bytes are.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _rendered(picture, wanted)
    except (NotAPictureError, PictureTooLargeError):
        raise
    except Image.DecompressionBombError as error:
        raise PictureTooLargeError(_TOO_MANY_PIXELS) from error
    except MemoryError as error:
        raise PictureTooLargeError("It takes more memory than making one picture smaller may.") from error
    except UnidentifiedImageError as error:
        raise NotAPictureError(
            "The object is no picture of a kind that is read here: JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF, JPEG 2000."
        ) from error
    except Exception as error:  # decoders of hostile bytes raise nearly everything
        raise NotAPictureError("The picture is truncated or damaged.") from error


def _rendered(picture: bytes, wanted: Rendition) -> bytes:
    with Image.open(BytesIO(picture), formats=FORMATS) as image:
        if image.width * image.height > MOST_PIXELS:
            raise PictureTooLargeError(_TOO_MANY_PIXELS)
        profile = image.info.get("icc_profile")
        return _encoded(_in_srgb(_shrunk(image, wanted), profile), wanted.format)


def _shrunk(image: Image.Image, wanted: Rendition) -> Image.Image:
    """Give the picture upright within the box; a JPEG is decoded at a fraction of its size."""
    if image.format not in _DRAFTED:
        image.load()  # some formats are turned upright by their decoders; only then it is known
    orientation = _orientation(image)
    box = (wanted.width_px, wanted.height_px)
    width, height = reversed(box) if orientation in _SIDEWAYS else box
    image = _resizable(image)
    image.thumbnail((width or image.width, height or image.height), reducing_gap=_GAP)
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a picture is worth showing though its metadata are damaged
        return 1
    return found if isinstance(found, int) else 1


def _resizable(image: Image.Image) -> Image.Image:
    """Give the picture in a mode that can be averaged: no palette, no single bits, eight bits a channel."""
    if image.mode.startswith("I;16"):
        return image.point(lambda value: value / 256).convert("L")
    if image.mode in {"I", "F"}:
        return _stretched(image)
    if image.has_transparency_data and image.mode not in {"RGBA", "LA"}:
        return image.convert("RGBA")
    if image.mode == "1":
        return image.convert("L")
    return image.convert("RGB") if image.mode in {"P", "HSV", "YCbCr", "LAB", "RGBX"} else image


def _stretched(image: Image.Image) -> Image.Image:
    """Give numbers without a range of their own (32 bits, floating point) from black to white."""
    lowest, highest = image.convert("F").getextrema()
    assert isinstance(lowest, float)  # noqa: S101 - one channel has one pair
    assert isinstance(highest, float)  # noqa: S101
    scale = 255 / (highest - lowest) if highest > lowest else 0
    return image.convert("F").point(lambda value: value * scale - lowest * scale).convert("L")


def _in_srgb(image: Image.Image, profile: object) -> Image.Image:
    """Give the picture in gray, RGB or RGBA; by its colour profile where it has one that can be read."""
    target = "RGBA" if image.has_transparency_data else "RGB"
    if isinstance(profile, bytes) and len(profile) <= _MOST_PROFILE_BYTES:
        try:
            converted = ImageCms.applyTransform(image, _transform(profile, image.mode, target))
        except Exception:  # noqa: S110 - a profile that cannot be read, or is of another kind of picture
            pass
        else:
            if converted is not None:
                return converted
    return image if image.mode == "L" else image.convert(target)


@lru_cache(8)
def _transform(profile: bytes, mode: str, target: str) -> ImageCms.ImageCmsTransform:
    """Give the way to sRGB; the pictures of one camera share it."""
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, target)


def _encoded(image: Image.Image, form: PictureFormat) -> bytes:
    if form == "jpeg" and image.mode == "RGBA":
        image = _on_white(image)
    if form == "webp" and max(image.size) > LARGEST_WEBP_SIDE_PX:
        raise PictureTooLargeError(f"WebP has at most {LARGEST_WEBP_SIDE_PX} pixels a side; ask for fewer.")
    image.info = {}
    written = BytesIO()
    if form == "webp":
        image.save(written, "WEBP", quality=_WEBP_QUALITY, method=_WEBP_EFFORT)
    else:
        image.save(written, "JPEG", quality=_JPEG_QUALITY)
    if written.tell() > MOST_RENDITION_BYTES:
        raise PictureTooLargeError(
            f"The result has more than {MOST_RENDITION_BYTES} bytes; ask for fewer pixels."
        )
    return written.getvalue()


def _on_white(image: Image.Image) -> Image.Image:
    ground = Image.new("RGB", image.size, "white")
    ground.paste(image, mask=image.getchannel("A"))
    return ground
