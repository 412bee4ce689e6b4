"""The supervisor closes the listening socket without loss."""

import asyncio
import socket
import sys
import threading
import time

import pytest

from serving._bentoml.supervisor import drain_accept_queue


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
