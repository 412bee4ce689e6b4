"""Run commands and servers as subprocesses."""

import os
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest

ROOT = Path(__file__).parents[2]


def run(*command, check=True, timeout=120, cwd=ROOT, **env):
    """Run a command and return the completed process; with `check`, fail the test if it fails."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if check and done.returncode:
        pytest.fail(f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def free_port():
    """Return a free TCP port."""
    with socket.socket() as unbound:
        unbound.bind(("127.0.0.1", 0))
        return unbound.getsockname()[1]


@contextmanager
def running_server(*command, log, cwd=ROOT, **env):
    """Run a command that serves on PORT; yield a client once the service is ready."""
    port = free_port()
    with log.open("w") as output:
        server = subprocess.Popen(
            command,
            cwd=cwd,
            env=os.environ | env | {"PORT": str(port)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            client.server, client.log = server, log
            # `make serve` may train first, on a busy machine.
            wait_until(lambda: is_ready(client), log, seconds=120)
            yield client
    finally:
        server.terminate()
        server.wait(timeout=30)


def without_linux_calls(folder):
    """Return environment variables for a Python without the system calls that only Linux has."""
    missing = {"os": ["posix_fallocate", "memfd_create", "waitid"]}
    lines = [
        f"import {module}; del {module}.{name}" for module in missing for name in missing[module]
    ]
    (folder / "sitecustomize.py").write_text("\n".join(lines))
    return {"PYTHONPATH": str(folder)}


def is_ready(client):
    """Return whether /readyz answers 200."""
    with suppress(httpx2.TransportError):
        return client.get("/readyz").status_code == 200


def wait_until(condition, log, seconds=30):
    """Return once a condition holds; fail after some seconds, with the server's log."""
    if not becomes_true(condition, seconds):
        pytest.fail(f"The condition did not hold within {seconds} s:\n{log.read_text()}")


def becomes_true(condition, seconds):
    """Poll a condition; return whether it becomes true within some seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
