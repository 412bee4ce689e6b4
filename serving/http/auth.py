"""API-key authentication: `Authorization: Bearer KEY`, or Basic with the key as password."""

from base64 import b64decode
from collections.abc import Iterable, Mapping
from hashlib import sha256
from hmac import compare_digest

from serving.errors import APIError

# Probes need no key: an orchestrator has none, and they tell only whether the service is up.
PUBLIC_PATHS = frozenset({"/healthz", "/livez", "/readyz"})
# The page asks its user for the key. Its files tell nothing: they are the same for every service.
PUBLIC_PAGE = "/try"
MESSAGE = "Send the header Authorization: Bearer KEY, where KEY is a valid API key"
# A browser that opens a page cannot send Bearer; for Basic it asks its user for a password.
# Chromium reads one challenge of a line: it does not ask if Bearer is first, or has no realm.
BEARER_CHALLENGE = 'Bearer realm="API key"'
BASIC_CHALLENGE = f'Basic realm="API key", {BEARER_CHALLENGE}'


class APIKeyAuth:
    """Check the API key of each request. Without keys, every request passes."""

    def __init__(self, keys: Iterable[str]) -> None:
        # Digests have equal lengths; comparing the keys themselves would leak their length.
        self.digests = [sha256(key.encode()).digest() for key in keys]

    def authenticate(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        """Raise APIError (401) if the path needs a key and the headers carry no valid one."""
        if not self.digests or path in PUBLIC_PATHS or is_public_file(path):
            return
        authorization = headers.get(b"authorization", b"")
        given = sha256(extract_token(authorization)).digest()
        # Compare with every key, each in constant time: the duration must not tell which one fits.
        matches = [compare_digest(given, digest) for digest in self.digests]
        if not any(matches):
            # A page that sent a wrong token itself would not benefit from a password dialog.
            sent_bearer = authorization[:7].lower() == b"bearer "
            challenge = BEARER_CHALLENGE if sent_bearer else BASIC_CHALLENGE
            raise APIError(401, MESSAGE, {"WWW-Authenticate": challenge})


def is_public_file(path: str) -> bool:
    """Tell whether a path is that of the page which asks for the key, or of one of its files."""
    return path == PUBLIC_PAGE or path.startswith(f"{PUBLIC_PAGE}/")


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
