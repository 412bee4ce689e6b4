"""The error responses of the API: each is JSON of the form `{"message": ...}`."""

import json
from collections.abc import Collection, Sequence

RETRY_AFTER = {"Retry-After": "1"}
MAX_HEAD_BYTES = 1 << 14  # request line and headers; most servers allow 8 to 32 KiB
MAX_NAMED_RECORDS = 20  # as examples, if the search for unpredictable records has ended early
UNPREDICTABLE = "The record is valid, but the model can't predict it; change its unusual values"


class APIError(Exception):
    """An error response. Any layer may raise it; `serving.http.app` sends it.

    `error_kinds`, some of `record_errors.ERROR_KINDS`, are for the metrics.
    """

    def __init__(
        self,
        status: int,
        message: str | dict[str, str],
        headers: dict[str, str] | None = None,
        error_kinds: Collection[str] = (),
    ) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.content = json.dumps({"message": message}).encode()
        self.headers = headers or {}
        self.error_kinds = error_kinds


class TooManyRequests(APIError):
    """A prediction request beyond MAX_CONCURRENCY, or for a full queue."""

    def __init__(self) -> None:
        super().__init__(429, "Too many predictions at once; try again in a second", RETRY_AFTER)


class UnpredictableError(APIError):
    """Valid records that the model can't predict.

    `numbers` are the indices of the records in an array, None for a single record. `all_found` is
    False if the array may have more of them. `reason` is for the log. The response is sent after
    `delay_seconds`.
    """

    def __init__(
        self,
        numbers: Sequence[int] | None,
        all_found: bool,
        reason: Exception,
        delay_seconds: float = 0,
    ) -> None:
        message: str | dict[str, str] = UNPREDICTABLE
        if numbers and all_found:
            message = {str(number): UNPREDICTABLE for number in numbers}
        elif numbers:
            examples = ", ".join(map(str, numbers[:MAX_NAMED_RECORDS]))
            message = (
                f"The model can't predict many of the records, such as {examples}; change their "
                "unusual values"
            )
        super().__init__(422, message)
        self.reason = reason
        self.delay_seconds = delay_seconds


def request_timeout_error(seconds: float) -> APIError:
    """Return the error for a request that did not arrive in time."""
    return APIError(408, f"The request was not complete within {seconds:g} s; try again")


def prediction_timeout_error(seconds: float) -> APIError:
    """Return the error for a request that was not predicted in time."""
    return APIError(504, f"No prediction within {seconds:g} s; try again")


def body_too_large(max_bytes: int) -> APIError:
    """Return the error for a body over the limit."""
    return APIError(413, f"The body is over {max_bytes} bytes; send less at a time")


def head_too_large() -> APIError:
    """Return the error for a request line and headers over the limit."""
    return APIError(431, f"The request line and headers are over {MAX_HEAD_BYTES} bytes; send less")


def not_json() -> APIError:
    """Return the error for a body whose Content-Type is not JSON."""
    return APIError(415, "Send the header Content-Type: application/json")


def content_encoded() -> APIError:
    """Return the error for a body with a Content-Encoding, such as gzip."""
    return APIError(415, "Send the body as it is, without the header Content-Encoding")


def internal_error(request_id: str) -> APIError:
    """Return the error for an exception that the service did not expect."""
    return APIError(500, f"Internal error; report it with request ID {request_id}")


def shutting_down() -> APIError:
    """Return the error for a request that can't be served before the service shuts down."""
    headers = {**RETRY_AFTER, "Connection": "close"}
    return APIError(503, "Shutting down; try again in a second", headers)
