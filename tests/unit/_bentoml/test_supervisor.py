"""The supervisor stops in every state, and closes the listening socket without loss."""

import asyncio
import socket
import subprocess
import sys
import threading
import time

import pytest

from serving._bentoml.supervisor import drain_accept_queue
from tests.helpers.commands import ROOT

# circus starts two workers, half a second apart, and gets SIGTERM after the first.
STOP_WHILE_STARTING = """
import os, signal
from circus import controller, get_arbiter
from serving._bentoml.supervisor import SignalHandler

def terminate(watcher, **_):
    if len(watcher.processes) == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    return True

controller.SysHandler = SignalHandler
arbiter = get_arbiter(
    [
        {
            "cmd": "sleep 60",
            "numprocesses": 2,
            "warmup_delay": 0.5,
            "hooks": {"after_spawn": (terminate, False)},
        }
    ]
)
arbiter.start()
"""


def test_signal_stops_the_service_while_workers_are_started():
    """Circus alone ignores the signal then."""
    subprocess.run([sys.executable, "-c", STOP_WHILE_STARTING], cwd=ROOT, timeout=20, check=True)


def answer_connections(listener):
    """Accept connections, slowly, and answer each, until the socket no longer listens."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            time.sleep(0.005)
            connection.sendall(connection.recv(1))


def connect_until_refused(address, answers):
    """Connect again and again; collect what each connection gets."""
    while True:
        try:
            connection = socket.create_connection(address, timeout=5)
        except ConnectionRefusedError:
            return
        with connection:
            try:
                connection.sendall(b"x")
                answers.append(connection.recv(1))
            except ConnectionResetError:
                answers.append(b"")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no option for this")
def test_no_connection_is_lost_when_the_service_stops_to_listen():
    """Clients connect all the time, so that the accept queue never gets empty by itself."""
    answers = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        clients = [
            threading.Thread(target=connect_until_refused, args=(address, answers))
            for _ in range(8)
        ]
        threads = [*clients, threading.Thread(target=answer_connections, args=(listener,))]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        asyncio.run(drain_accept_queue([listener]))
        for thread in threads:
            thread.join(10)
    assert len(answers) > len(clients)
    assert set(answers) == {b"x"}
