"""The one shape of every error: `{"message": ...}`."""

import json
from collections.abc import Collection

RETRY_AFTER = {"Retry-After": "1"}


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
        self.body = json.dumps({"message": message}).encode()
        self.headers = headers or {}
        self.faults = faults  # the kinds, of `FAULT_KINDS`, for the metrics


class Busy(Refusal):
    """The answer to a prediction request for which there is no place."""
