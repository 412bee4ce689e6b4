"""API keys: which headers bear one, and which paths need none."""

import json

import pytest

from serving.keys import Keys
from serving.refusal import Refusal

FIRST, SECOND = "first-key-of-two", "second/key+of=two"


def check(authorization, path="/predict", keys=(FIRST, SECOND)):
    """Check a request with this header, or without one."""
    headers = {} if authorization is None else {b"authorization": authorization.encode("latin-1")}
    Keys(keys).check(path, headers)


@pytest.mark.parametrize(
    "authorization",
    [f"Bearer {FIRST}", f"Bearer {SECOND}", f"bearer {FIRST}", f"Bearer  {FIRST} "],
)
def test_valid_key_passes(authorization):
    """Each of them, in any spelling that means it."""
    check(authorization)


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        FIRST,
        f"Basic {FIRST}",
        f"Bearer {FIRST}x",
        f"Bearer {FIRST[:-1]}",
        f"Bearer {FIRST.upper()}",
        f"Bearer {FIRST},{SECOND}",
        f"Bearer {FIRST} {SECOND}",
        "Bearer \xff",
        "Bearer " + "x" * 60_000,
    ],
    ids=range(13),
)
def test_anything_else_is_refused(authorization):
    """401, with what to send."""
    with pytest.raises(Refusal) as caught:
        check(authorization)
    assert caught.value.status == 401
    assert caught.value.headers == {"WWW-Authenticate": "Bearer"}
    assert json.loads(caught.value.body)["message"].startswith("Send the header Authorization:")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz"])
def test_probes_need_no_key(path):
    """Kubernetes has none."""
    check(None, path)


@pytest.mark.parametrize("path", ["/livez/", "//livez", "/livez\n", "/metrics", "/", ""])
def test_every_other_path_needs_one(path):
    """Also if it looks like a probe's."""
    with pytest.raises(Refusal):
        check(None, path)


def test_without_keys_nothing_is_checked():
    """Which is how the service starts."""
    check(None, keys=())
