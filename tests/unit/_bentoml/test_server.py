"""The uvicorn server of a worker; tests/live has what needs a running one."""

import os
import socket

from serving._bentoml.server import duplicate_listener


def test_duplicating_a_listener_keeps_it_non_blocking():
    """Workers share the listener: if it blocked, the event loop of another worker would stop."""
    with socket.create_server(("127.0.0.1", 0)) as supervisor:
        supervisor.setblocking(False)
        with socket.socket(fileno=os.dup(supervisor.fileno())) as worker:
            copies = duplicate_listener(worker)
            assert not os.get_blocking(supervisor.fileno())
        assert len({copy.getsockname() for copy in copies}) == 1
        for copy in copies:
            copy.close()
