"""API keys: which headers bear one, and which paths need none."""

import json
from base64 import b64encode

import pytest

from serving.errors import APIError
from serving.http.auth import BASIC_CHALLENGE, BEARER_CHALLENGE, APIKeyAuth

FIRST, SECOND = "first-key-of-two", "second/key+of=two"


def check(authorization, path="/predict", keys=(FIRST, SECOND)):
    """Check a request with this header, or without one."""
    headers = {} if authorization is None else {b"authorization": authorization.encode("latin-1")}
    APIKeyAuth(keys).authenticate(path, headers)


def basic(credentials):
    """Return the header that a browser sends for a user and password, such as "me:secret"."""
    return f"Basic {b64encode(credentials.encode()).decode()}"


@pytest.mark.parametrize(
    "authorization",
    [
        f"Bearer {FIRST}",
        f"Bearer {SECOND}",
        f"bearer {FIRST}",
        f"Bearer  {FIRST} ",
        basic(f"me:{FIRST}"),
        basic(f":{SECOND}"),
        basic(f"J\u00f6rg:{FIRST}"),
        basic(f"me:{FIRST}").replace("Basic", "BASIC "),
    ],
)
def test_valid_key_passes(authorization):
    """Each of them, in any spelling that means it, as a token or as anybody's password."""
    check(authorization)


def test_key_with_a_colon_can_be_a_password():
    """The first colon ends the name of the user."""
    check(basic("me:colon:in:the:key"), keys=["colon:in:the:key"])


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
        "Basic",
        basic(""),
        basic(FIRST),
        basic(f"{FIRST}:"),
        basic(f"me:{FIRST}x"),
        basic(f"me:you:{FIRST}"),
        basic(f"me:{FIRST}") + "=",
        basic(f"me:{FIRST}").replace("Basic", "Bearer"),
        "Basic \xff",
        f"Digest {FIRST}",
    ],
    ids=range(23),
)
def test_anything_else_is_refused(authorization):
    """401, with what to send."""
    with pytest.raises(APIError) as caught:
        check(authorization)
    assert caught.value.status == 401
    sent_bearer = authorization and authorization.startswith("Bearer ")
    challenge = BEARER_CHALLENGE if sent_bearer else BASIC_CHALLENGE
    assert caught.value.headers == {"WWW-Authenticate": challenge}
    assert json.loads(caught.value.content)["message"].startswith("Send the header Authorization:")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz"])
def test_probes_need_no_key(path):
    """Kubernetes has none."""
    check(None, path)


@pytest.mark.parametrize("path", ["/livez/", "//livez", "/livez\n", "/metrics", "/", ""])
def test_every_other_path_needs_one(path):
    """Also if it looks like a probe's."""
    with pytest.raises(APIError):
        check(None, path)


def test_without_keys_nothing_is_checked():
    """Which is how the service starts."""
    check(None, keys=())
