"""HAProxy with the configuration of deploy/proxy, in front of a server under test."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.helpers.commands import ROOT, becomes_true, free_port
from tests.stress.server import HOST, START_TIMEOUT_SECONDS, Server

CONFIGURATION = ROOT / "deploy/proxy/haproxy.cfg"


@contextmanager
def run_proxy(server: Server) -> Iterator[Server]:
    """Start HAProxy; yield the server as its clients see it, through the proxy."""
    if not shutil.which("haproxy"):
        raise SystemExit("haproxy is missing: install it, on Debian with `apt-get install haproxy`")
    port = free_port()
    path = server.log.with_suffix(".haproxy.cfg")
    path.write_text(configuration(port, server.port))
    with server.log.with_suffix(".haproxy.log").open("w") as log:
        process = subprocess.Popen(["haproxy", "-f", path], stdout=log, stderr=log)  # noqa: S607
    proxied = Server(process, port, server.log)
    try:
        if not becomes_true(proxied.is_ready, START_TIMEOUT_SECONDS):
            raise RuntimeError("The proxy did not become ready")
        yield proxied
    finally:
        process.terminate()
        process.wait()


def configuration(port: int, server_port: int) -> str:
    """Return the configuration for one replica at a known address, without a rate limit."""
    text = CONFIGURATION.read_text()
    changes = {
        r"bind :8080": f"bind {HOST}:{port}",
        r"server-template .*": f"server replica {HOST}:{server_port}",
        r"(?s)resolvers docker\n.*": "",
        r"RATE_LIMIT 2000": "RATE_LIMIT 1000000000",
    }
    for pattern, replacement in changes.items():
        text, count = re.subn(pattern, replacement, text)
        if not count:
            raise ValueError(f"{CONFIGURATION} has no {pattern}")
    return text
