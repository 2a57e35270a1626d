"""One nginx: of one process, with every file it writes in a folder of the benchmark's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.processes import Running, find_program, running

_CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/{name}.pid;
error_log {folder}/{name}.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type application/octet-stream;
    client_body_temp_path {folder}/temporary;
    proxy_temp_path {folder}/temporary;
    fastcgi_temp_path {folder}/temporary;
    uwsgi_temp_path {folder}/temporary;
    scgi_temp_path {folder}/temporary;
    keepalive_timeout 75s;
    keepalive_requests 100000000;
{server}
}}
"""


@contextmanager
def start_nginx(name: str, folder: Path, port: int, server: str) -> Iterator[Running]:
    """Run nginx with a `server` block until the `with` block ends; raises `FileNotFoundError` without nginx."""
    program = find_program("nginx")
    if program is None:
        raise FileNotFoundError("nginx is not installed")
    (folder / "temporary").mkdir(exist_ok=True)
    configuration = folder / f"{name}.conf"
    configuration.write_text(_CONFIGURATION.format(name=name, folder=folder, server=server))
    log = str(folder / f"{name}.log")
    with running(name, [program, "-e", log, "-c", str(configuration)], folder, port) as process:
        yield process
