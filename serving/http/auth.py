"""API-key authentication: `Authorization: Bearer KEY`, or Basic with the key as password."""

from base64 import b64decode
from collections.abc import Iterable, Mapping
from hashlib import sha256
from hmac import compare_digest

from serving.errors import APIError

# Probes need no key: an orchestrator has none, and a probe shows only whether the service is up.
PUBLIC_PATHS = frozenset({"/healthz", "/livez", "/readyz"})
# The page asks its user for the key. Its files contain no data of the service.
TRY_PAGE = "/try"
INVALID_KEY_MESSAGE = "Send the header Authorization: Bearer KEY, where KEY is a valid API key"
# A browser that opens a page cannot send Bearer; for Basic it shows a password dialog. Chromium
# parses only the first challenge of a header: if Bearer comes first, or a challenge has no realm,
# it shows no dialog.
BEARER_CHALLENGE = 'Bearer realm="API key"'
BASIC_CHALLENGE = f'Basic realm="API key", {BEARER_CHALLENGE}'


class APIKeyAuth:
    """Check the API key of each request. Without keys, every request passes."""

    def __init__(self, keys: Iterable[str]) -> None:
        # Digests have equal lengths; comparing the keys themselves would leak their length.
        self.digests = [sha256(key.encode()).digest() for key in keys]

    def authenticate(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        """Raise APIError (401) if the path needs a key and the headers carry no valid one."""
        if not self.digests or path in PUBLIC_PATHS or is_try_page(path):
            return
        authorization = headers.get(b"authorization", b"")
        given = sha256(extract_token(authorization)).digest()
        # Compare with every key, each in constant time: the duration must not show which key fits.
        matches = [compare_digest(given, digest) for digest in self.digests]
        if not any(matches):
            sent_bearer = authorization[:7].lower() == b"bearer "
            # Bearer or X-What-If comes from a script, such as that of the page at /try, which asks
            # for the key itself: the browser must not open its password dialog.
            from_script = sent_bearer or b"x-what-if" in headers
            challenge = BEARER_CHALLENGE if from_script else BASIC_CHALLENGE
            raise APIError(401, INVALID_KEY_MESSAGE, {"WWW-Authenticate": challenge})


def is_try_page(path: str) -> bool:
    """Return whether a path belongs to the page at /try or its files."""
    return path == TRY_PAGE or path.startswith(f"{TRY_PAGE}/")


def extract_token(authorization: bytes) -> bytes:
    """Return the token of Bearer or the password of Basic, and b"" for anything else."""
    scheme, _, credentials = authorization.partition(b" ")
    if scheme.lower() == b"bearer":
        return credentials.strip()
    if scheme.lower() == b"basic":
        try:
            return b64decode(credentials.strip(), validate=True).partition(b":")[2]
        except ValueError:
            return b""
    return b""
