"""A headless Chromium: the one that came as a package, elsewhere one found on the machine."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UNPACKED = ROOT / ".cache" / "browser"
ON_MACHINES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
IN_APPLICATIONS = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--headless=shell",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
)


@dataclass(frozen=True, slots=True)
class Chromium:
    """A program, the environment that it needs, and the arguments that suit it."""

    executable: str
    environment: dict[str, str]
    arguments: tuple[str, ...] = ARGUMENTS


def find_chromium() -> Chromium:
    """The unpacked one, else the machine's; fails when there is none."""
    if (UNPACKED / "chromium").exists():
        libraries = {"LD_LIBRARY_PATH": f"{UNPACKED / 'al2023' / 'lib'}:{UNPACKED}"}
        fonts = {"FONTCONFIG_PATH": str(UNPACKED / "fonts")}
        return Chromium(str(UNPACKED / "chromium"), {**os.environ, **libraries, **fonts})
    found = next(filter(None, map(shutil.which, ON_MACHINES)), None)
    if found is None and IN_APPLICATIONS.exists():
        found = str(IN_APPLICATIONS)
    assert found, "no Chromium is installed: run script/bootstrap (Linux x86_64), or install one"
    return Chromium(found, dict(os.environ))
