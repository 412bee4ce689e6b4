"""The one shape of every error: `{"message": ...}`."""

import json
from collections.abc import Collection

RETRY_AFTER = {"Retry-After": "1"}
# Bytes of the request line and headers; most servers take 8 to 32 KiB.
MAX_HEAD = 1 << 14


class Refusal(Exception):
    """An error answer: raised wherever it is found out, sent by the edge."""

    def __init__(
        self,
        status: int,
        message: str | dict[str, str],
        headers: dict[str, str] | None = None,
        faults: Collection[str] = (),
    ) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.body = json.dumps({"message": message}).encode()
        self.headers = headers or {}
        self.faults = faults  # the kinds, of `FAULT_KINDS`, for the metrics


class Busy(Refusal):
    """The answer to a prediction request for which there is no place."""

    def __init__(self) -> None:
        super().__init__(429, "Too many predictions at once; try again in a second", RETRY_AFTER)


def too_slow(seconds: float) -> Refusal:
    """Return the answer to a request that did not arrive in time."""
    return Refusal(408, f"The request was not complete within {seconds:g} s; try again")


def too_late(seconds: float) -> Refusal:
    """Return the answer to a request that was not predicted in time."""
    return Refusal(504, f"No prediction within {seconds:g} s; try again")


def too_large(max_bytes: int) -> Refusal:
    """Return the answer to a body over the limit."""
    return Refusal(413, f"The body is over {max_bytes} bytes; send less at a time")


def head_too_large() -> Refusal:
    """Return the answer to a head over the limit."""
    return Refusal(431, f"The request line and headers are over {MAX_HEAD} bytes; send less")


def not_json() -> Refusal:
    """Return the answer to a body that is not announced as JSON."""
    return Refusal(415, "Send the header Content-Type: application/json")


def encoded() -> Refusal:
    """Return the answer to a body that is compressed, or the like."""
    return Refusal(415, "Send the body as it is, without the header Content-Encoding")


def internal_error(request_id: str) -> Refusal:
    """Return the answer to a request that failed through no fault of its own."""
    return Refusal(500, f"Internal error; report it with request ID {request_id}")


def shutting_down() -> Refusal:
    """Return the answer to what can't be served any more."""
    headers = {**RETRY_AFTER, "Connection": "close"}
    return Refusal(503, "Shutting down; try again in a second", headers)
