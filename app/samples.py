"""Draws the pictures of a demo that was given none: small, different from each other, always the same."""

import colorsys
import random
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

COUNT = 60
_FOLDERS = ("circles", "squares", "triangles")
_SIZES = ((640, 480), (480, 640), (800, 600))
_ROTATED = 0x0112
"""The EXIF tag Orientation."""


def draw(folder: Path, count: int = COUNT) -> None:
    """Draw `count` JPEG and PNG pictures into `folder`, in one folder for each shape; one in ten is rotated."""
    for number in range(count):
        shape = _FOLDERS[number % len(_FOLDERS)]
        ending = "png" if number % 7 == 6 else "jpg"
        path = folder / shape / f"{shape}_{number:02d}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(_picture(number, shape), path, rotated=number % 10 == 9)


def _picture(number: int, shape: str) -> Image.Image:
    chance = random.Random(number)  # noqa: S311 - the same picture each time, no secret
    width, height = _SIZES[number % len(_SIZES)]
    image = Image.new("RGB", (width, height), _colour(number * 0.13, 0.25, 0.95))
    canvas = ImageDraw.Draw(image)
    for box in _boxes(chance, width, height):
        _shape(canvas, shape, box, _colour(chance.random(), 0.7, 0.85))
    canvas.text((16, 12), f"{shape} {number:02d}", fill="#222222", font=ImageFont.load_default(32))
    return image


def _boxes(chance: random.Random, width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    for _ in range(chance.randint(3, 9)):
        side = chance.randint(60, 200)
        left, top = chance.randint(0, width - side), chance.randint(60, height - side)
        yield left, top, left + side, top + side


def _shape(canvas: ImageDraw.ImageDraw, shape: str, box: tuple[int, int, int, int], colour: str) -> None:
    left, top, right, bottom = box
    if shape == "circles":
        canvas.ellipse(box, fill=colour, outline="#222222", width=3)
    elif shape == "squares":
        canvas.rectangle(box, fill=colour, outline="#222222", width=3)
    else:
        corners = [((left + right) / 2, top), (right, bottom), (left, bottom)]
        canvas.polygon(corners, fill=colour, outline="#222222", width=3)


def _colour(hue: float, saturation: float, value: float) -> str:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return f"#{int(red * 255):02x}{int(green * 255):02x}{int(blue * 255):02x}"


def _save(image: Image.Image, path: Path, *, rotated: bool) -> None:
    if path.suffix == ".png":
        image.save(path)
        return
    exif = Image.Exif()
    if rotated:
        exif[_ROTATED] = 6
        image = image.rotate(90, expand=True)
    image.save(path, quality=88, exif=exif)
