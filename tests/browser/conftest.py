"""Fixtures of the tests in this folder."""

from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.conftest import STORE
from tests.helpers.chromium import browser
from tests.helpers.commands import running_server

__all__ = ["browser"]

KEY = "key-of-the-browser-tests"


@contextmanager
def blank_page(folder):
    """Serve an empty page from a folder; yield its origin."""
    (folder / "index.html").touch()
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def origin(tmp_path_factory):
    """The origin of a web page on another server."""
    with blank_page(tmp_path_factory.mktemp("page")) as origin:
        yield origin


@pytest.fixture(scope="session")
def protected(model, origin, tmp_path_factory):
    """A client, with the API key, of a service that requires it.

    The service also allows an origin (CORS_ORIGINS), and takes arrays of at most 120 records.
    """
    home = tmp_path_factory.mktemp("protected")
    # It shares the models with `live`, but no other state.
    (home / "models").symlink_to(Path(STORE, "models"))
    env = {"API_KEYS": KEY, "CORS_ORIGINS": origin, "MAX_RECORDS": "120"}
    log = home / "log"
    with running_server("bentoml", "serve", log=log, BENTOML_HOME=str(home), **env) as client:
        client.headers["Authorization"] = f"Bearer {KEY}"
        yield client
