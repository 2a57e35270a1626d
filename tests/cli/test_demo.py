"""`framegate demo`: everything on this machine, and every line that it prints can be pasted."""

import re
import shlex
from pathlib import Path

import httpx
import pytest
from PIL import Image

from app.samples import draw
from tests.api.conftest import client
from tests.cli.command import Running, framegate, going_on


def printed(demo: Running, label: str) -> str:
    """What stands behind a label of the printed table."""
    match = re.search(rf"^  {label} +(\S+)", demo.text, re.MULTILINE)
    assert match, demo.text
    return match[1]


async def pasted(line: str, cwd: Path) -> bytes:
    """Do what a printed `curl` line would do; curl itself may not be here."""
    words = iter(shlex.split(line)[1:])
    headers: dict[str, str] = {}
    url = output = ""
    for word in words:
        match word:
            case "-H":
                name, _, value = next(words).partition(": ")
                headers[name] = value
            case "-r":
                headers["Range"] = f"bytes={next(words)}"
            case "-o":
                output = next(words)
            case "-s":
                pass
            case _:
                url = word
    async with httpx.AsyncClient(trust_env=False, timeout=60) as one:
        answer = await one.get(url, headers=headers)
    assert answer.status_code in {200, 206}, (line, answer.text)
    if output:
        (cwd / output).write_bytes(answer.content)
    return answer.content


async def served(demo: Running, token: str, folder: Path) -> int:
    """Compare every picture of a folder with what is served of it; gives how many there are."""
    async with client(demo.url, token) as one:
        storages = (await one.get("/v1/storages")).json()["items"]
        storage = next(item for item in storages if item["display_name"] == folder.name)
        manifest = (await one.get(f"/v1/storages/{storage['id']}/manifests")).json()["items"][0]
        path = f"/v1/manifests/{manifest['id']}/frames"
        frames = (await one.get(path, params={"limit": 1000})).json()["items"]
        for frame in frames:
            picture = await one.get(f"{path}/{frame['number']}/image")
            assert picture.content == (folder / frame["key"]).read_bytes(), frame["key"]
            with Image.open(folder / frame["key"]) as image:
                turned = image.getexif().get(0x0112, 1) >= 5
                size = image.size[::-1] if turned else image.size
            assert (frame["width_px"], frame["height_px"]) == size
        return len(frames)


async def test_serves_a_folder_byte_for_byte_and_finds_it_again(tmp_path: Path) -> None:
    folder, other = tmp_path / "my pets", tmp_path / "other"
    draw(folder, 12)
    (folder / "é ü #1.jpg").write_bytes((folder / "circles" / "circles_00.jpg").read_bytes())
    (folder / "no picture.txt").write_text("text")
    draw(other, 3)
    setting = {"DATA_DIR": str(tmp_path / "data")}
    async with going_on("demo", str(folder), cwd=tmp_path, **setting) as demo:
        token = printed(demo, "Token")
        assert await served(demo, token, folder) == 13
        lines = re.findall(r"^  (curl .*)$", demo.text, re.MULTILINE)
        bodies = [await pasted(line, tmp_path) for line in lines]
        assert len(lines) == 4
        assert (tmp_path / "frame-0.jpg").read_bytes() == bodies[2]
        async with client(demo.url) as nobody:
            assert (await nobody.get(printed(demo, "A picture"))).headers["content-type"].startswith("image/")
            assert (await nobody.get(printed(demo, "Swagger UI"))).status_code == 200
        assert await demo.stop(2) == 0
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "data" / "demo-token").stat().st_mode & 0o777 == 0o600
    async with going_on("demo", str(other), cwd=tmp_path, **setting) as demo:
        assert printed(demo, "Token") == token
        assert await served(demo, token, other) == 3
        assert await served(demo, token, folder) == 13


async def test_draws_sixty_pictures_where_it_was_given_none(tmp_path: Path) -> None:
    async with going_on("demo", cwd=tmp_path) as demo:
        assert "60 pictures" in demo.text
        link = printed(demo, "A picture")
        async with client(demo.url) as nobody:
            assert (await nobody.get(link)).content.startswith(b"\xff\xd8")


@pytest.mark.parametrize("folder", ["none", "empty"])
async def test_a_folder_without_pictures_is_one_line(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    ended = await framegate("demo", folder, "--port", "64999", cwd=tmp_path)
    assert ended.code == 1
    assert len(ended.err.splitlines()) == 1
    assert folder in ended.err
