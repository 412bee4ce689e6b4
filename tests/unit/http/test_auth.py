"""API-key authentication: valid and invalid headers, and the paths that need no key."""

import json
from base64 import b64encode

import pytest

from serving.errors import APIError
from serving.http.auth import BASIC_CHALLENGE, BEARER_CHALLENGE, APIKeyAuth

FIRST_KEY, SECOND_KEY = "first-key-of-two", "second/key+of=two"


def authenticate(authorization, path="/predict", keys=(FIRST_KEY, SECOND_KEY)):
    """Authenticate a request with an Authorization header; None stands for no header."""
    headers = {} if authorization is None else {b"authorization": authorization.encode("latin-1")}
    APIKeyAuth(keys).authenticate(path, headers)


def basic(credentials):
    """Return the header that a browser sends for a user and a password, such as "me:secret"."""
    return f"Basic {b64encode(credentials.encode()).decode()}"


VALID_CREDENTIALS = {
    "Bearer, first key": f"Bearer {FIRST_KEY}",
    "Bearer, second key": f"Bearer {SECOND_KEY}",
    "lower-case Bearer": f"bearer {FIRST_KEY}",
    "Bearer, surplus spaces": f"Bearer  {FIRST_KEY} ",
    "Basic": basic(f"me:{FIRST_KEY}"),
    "Basic, empty user": basic(f":{SECOND_KEY}"),
    "Basic, non-ASCII user": basic(f"J\u00f6rg:{FIRST_KEY}"),
    "upper-case Basic, surplus space": basic(f"me:{FIRST_KEY}").replace("Basic", "BASIC "),
}


@pytest.mark.parametrize("authorization", VALID_CREDENTIALS.values(), ids=VALID_CREDENTIALS)
def test_valid_key_is_accepted(authorization):
    """As a Bearer token, or as the Basic password of any user; schemes are case-insensitive."""
    authenticate(authorization)


def test_basic_password_may_have_colons():
    """Only the first colon separates the user from the password."""
    authenticate(basic("me:colon:in:the:key"), keys=["colon:in:the:key"])


INVALID_CREDENTIALS = {
    "no header": None,
    "empty header": "",
    "Bearer without space": "Bearer",
    "Bearer without token": "Bearer ",
    "key without scheme": FIRST_KEY,
    "Basic with unencoded key": f"Basic {FIRST_KEY}",
    "key with surplus character": f"Bearer {FIRST_KEY}x",
    "truncated key": f"Bearer {FIRST_KEY[:-1]}",
    "upper-case key": f"Bearer {FIRST_KEY.upper()}",
    "two keys with comma": f"Bearer {FIRST_KEY},{SECOND_KEY}",
    "two keys with space": f"Bearer {FIRST_KEY} {SECOND_KEY}",
    "Bearer, not ASCII": "Bearer \xff",
    "Bearer, 60 kB": "Bearer " + "x" * 60_000,
    "Basic without space": "Basic",
    "Basic without credentials": basic(""),
    "Basic without colon": basic(FIRST_KEY),
    "Basic, key as user": basic(f"{FIRST_KEY}:"),
    "Basic, wrong password": basic(f"me:{FIRST_KEY}x"),
    "Basic, colon before the key": basic(f"me:you:{FIRST_KEY}"),
    "Basic, surplus padding": basic(f"me:{FIRST_KEY}") + "=",
    "Bearer with Basic credentials": basic(f"me:{FIRST_KEY}").replace("Basic", "Bearer"),
    "Basic, not ASCII": "Basic \xff",
    "unknown scheme": f"Digest {FIRST_KEY}",
}


@pytest.mark.parametrize("authorization", INVALID_CREDENTIALS.values(), ids=INVALID_CREDENTIALS)
def test_invalid_credentials_are_rejected_with_401(authorization):
    """The message says what to send. An invalid Bearer token gets no Basic challenge."""
    with pytest.raises(APIError) as caught:
        authenticate(authorization)
    assert caught.value.status == 401
    sent_bearer = authorization and authorization.startswith("Bearer ")
    challenge = BEARER_CHALLENGE if sent_bearer else BASIC_CHALLENGE
    assert caught.value.headers == {"WWW-Authenticate": challenge}
    assert json.loads(caught.value.content)["message"].startswith("Send the header Authorization:")


def test_what_if_request_gets_no_basic_challenge():
    """The page at /try asks for the key itself, so the browser must not open its own dialog."""
    with pytest.raises(APIError) as caught:
        APIKeyAuth([FIRST_KEY]).authenticate("/predict", {b"x-what-if": b"true"})
    assert caught.value.headers == {"WWW-Authenticate": BEARER_CHALLENGE}


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz"])
def test_probes_need_no_key(path):
    """Orchestrators such as Kubernetes have no key."""
    authenticate(None, path)


@pytest.mark.parametrize("path", ["/livez/", "//livez", "/livez\n", "/metrics", "/", ""])
def test_every_other_path_needs_a_key(path):
    """Even if it is similar to the path of a probe."""
    with pytest.raises(APIError):
        authenticate(None, path)


def test_authentication_is_off_without_keys():
    """This is the default."""
    authenticate(None, keys=())
