"""Clients in threads that send prediction requests in the background of a test."""

import http.client
import json
import threading
from collections import Counter

from house import EXAMPLE
from tests.helpers.commands import run, wait_until
from tests.helpers.tutorial import TUTORIAL_RESPONSE

BODY = json.dumps(EXAMPLE)
HEADERS = {"Content-Type": "application/json"}
MAX_REQUESTS = 100_000  # of one client; the load ends even if a test never stops it


class Load:
    """Clients that send the example in a loop, and count the outcomes."""

    def __init__(self, host, port, clients, resend=False):
        """With `resend`, send a request again if its connection is closed without a response.

        curl and browsers do the same. `resent` counts these requests.
        """
        self.address = (host, port)
        self.resend = resend
        self.resent = 0
        self.outcomes = Counter()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.send) for _ in range(clients)]

    def __enter__(self):
        """Start the clients."""
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        """Stop the clients, and print the outcomes."""
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        print(f"\n{len(self.threads)} clients: {dict(self.outcomes)}, {self.resent} resent")

    def send(self):
        """Send requests until `stopping` is set; after a failure, on a new connection."""
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        for _ in range(MAX_REQUESTS):
            if self.stopping.is_set():
                break
            outcome = self.outcome(connection)
            if self.resend and outcome.startswith("RemoteDisconnected"):
                self.resent += 1
                outcome = self.outcome(connection)  # on a new connection
            self.outcomes[outcome] += 1
        connection.close()

    @staticmethod
    def outcome(connection):
        """Send a request; return "answered" for the correct prediction, or the error."""
        try:
            connection.request("POST", "/predict", BODY, HEADERS)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return repr(error)
        right = response.status == 200 and json.loads(body) == TUTORIAL_RESPONSE
        return "answered" if right else f"{response.status} {body!r}"

    def await_answers(self, number, log):
        """Return once `number` more requests have been answered."""
        enough = self.outcomes["answered"] + number
        wait_until(lambda: self.outcomes["answered"] >= enough, log)

    @property
    def failed(self):
        """Return the number of requests without a correct prediction."""
        return self.outcomes.total() - self.outcomes["answered"]


def kill_worker(container):
    """Kill the worker in a container with SIGKILL."""
    find = "grep -l worker[.]service /proc/[0-9]*/cmdline | cut -d/ -f3"  # not this shell
    run("docker", "exec", container, "bash", "-c", f"kill -9 $({find})")
