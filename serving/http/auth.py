"""API keys: what a request has to bear, if there are any, unless it is a probe."""

from base64 import b64decode
from collections.abc import Iterable, Mapping
from hashlib import sha256
from hmac import compare_digest

from serving.errors import Refusal

# Whoever probes a container has no key, and learns nothing but whether it is alive.
OPEN = frozenset({"/healthz", "/livez", "/readyz"})
WORDS = "Send the header Authorization: Bearer KEY, where KEY is a valid API key"
# A browser that opens a page can't send Bearer, but asks its user for the password of Basic.
# Chromium reads one challenge of a line: it does not ask if Bearer is first, or has no realm.
BEARER = 'Bearer realm="API key"'
BASIC = f'Basic realm="API key", {BEARER}'


class Keys:
    """The valid keys, as their SHA-256: to compare unequal lengths would tell the length."""

    def __init__(self, keys: Iterable[str]) -> None:
        self.digests = [sha256(key.encode()).digest() for key in keys]

    def check(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        """Raise `Refusal` (401) if the path needs a key and the headers bear none that is valid."""
        if not self.digests or path in OPEN:
            return
        authorization = headers.get(b"authorization", b"")
        given = sha256(borne(authorization)).digest()
        # All of them, whichever fits, and each in constant time: how long it takes tells nothing.
        found = [compare_digest(given, digest) for digest in self.digests]
        if not any(found):
            # To ask for a password would not help a page that has sent a wrong token itself.
            challenge = BEARER if authorization[:7].lower() == b"bearer " else BASIC
            raise Refusal(401, WORDS, {"WWW-Authenticate": challenge})


def borne(authorization: bytes) -> bytes:
    """Return the token of Bearer, or the password of Basic; nothing, which is no key, otherwise."""
    scheme, _, credentials = authorization.partition(b" ")
    if scheme.lower() == b"bearer":
        return credentials.strip()
    if scheme.lower() == b"basic":
        try:
            return b64decode(credentials.strip(), validate=True).partition(b":")[2]
        except ValueError:
            return b""
    return b""
