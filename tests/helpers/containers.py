"""Run a container in the background."""

import shlex
import time
from contextlib import contextmanager

import httpx2

from tests.helpers.commands import is_ready, run, wait_until


class ContainerLog:
    """The log of a container, with the interface of a file."""

    def __init__(self, name):
        self.name = name

    def read_text(self):
        """Return what the container has logged so far."""
        done = run("docker", "logs", self.name)
        return done.stdout + done.stderr


@contextmanager
def running_container(command):
    """Run a `docker run` command in the background, on a free port; yield a client when ready."""
    # Without --rm: tests read the log and the exit status of the stopped container.
    command = command.replace(" --rm", "").replace(" -p 3000:3000", " -p 127.0.0.1::3000")
    start = time.perf_counter()
    name = run(*shlex.split(command.replace("docker run", "docker run --detach"))).stdout.strip()
    try:
        port = run("docker", "port", name, "3000").stdout.rpartition(":")[2].strip()
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            client.container, client.log = name, ContainerLog(name)
            wait_until(lambda: is_ready(client), client.log)
            client.seconds_to_ready = time.perf_counter() - start
            yield client
    finally:
        run("docker", "rm", "--force", name)
