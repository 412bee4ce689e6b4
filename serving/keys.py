"""API keys: what a request has to bear, if there are any, unless it is a probe."""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from hmac import compare_digest

from serving.refusal import Refusal

# Whoever probes a container has no key, and learns nothing but whether it is alive.
OPEN = frozenset({"/healthz", "/livez", "/readyz"})
WORDS = "Send the header Authorization: Bearer KEY, where KEY is a valid API key"


class Keys:
    """The valid keys, as their SHA-256: to compare unequal lengths would tell the length."""

    def __init__(self, keys: Iterable[str]) -> None:
        self.digests = [sha256(key.encode()).digest() for key in keys]

    def check(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        """Raise `Refusal` (401) if the path needs a key and the headers bear none that is valid."""
        if not self.digests or path in OPEN:
            return
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        given = sha256(key.strip()).digest()
        # All of them, whichever fits, and each in constant time: how long it takes tells nothing.
        found = [compare_digest(given, digest) for digest in self.digests]
        if scheme.lower() != b"bearer" or not any(found):
            raise Refusal(401, WORDS, {"WWW-Authenticate": "Bearer"})
