"""Send the response to one request with its request ID, and errors in the JSON format."""

import re
from http import HTTPStatus
from random import Random

from starlette.types import Message, Scope, Send

from serving.errors import RETRY_AFTER, APIError

# A caller may choose the ID; these characters cannot forge a line of the log.
REQUEST_ID = re.compile(rb"[\w.-]{1,64}")
# uuid4() makes a system call for each ID. A generator of its own, because a model may seed the
# global one of `random`.
id_generator = Random()  # noqa: S311


class ResponseSender:
    """The ASGI `send` of one request, for BentoML's application and for `ServiceApp`.

    It adds the request ID. It drops an error response of BentoML's application: `raise_for_status`
    then raises an exception in its place.
    """

    def __init__(self, scope: Scope, send: Send) -> None:
        self.request_headers: dict[bytes, bytes] = dict(scope["headers"])
        given_id = self.request_headers.get(b"x-request-id", b"")
        self.request_id = given_id.decode() if REQUEST_ID.fullmatch(given_id) else new_request_id()
        self.send = send
        self.status = 0  # until a response has started
        self.error_start: Message | None = None

    async def __call__(self, message: Message) -> None:
        """Forward a message of BentoML's application, unless it belongs to an error response."""
        if message["type"] == "http.response.start":
            if message["status"] >= 400:
                self.error_start = message
            else:
                self.status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", self.request_id.encode()),
                ]
        if self.error_start is None:
            await self.send(message)

    async def send_json(self, status: int, content: bytes, *headers: tuple[bytes, bytes]) -> None:
        """Send a JSON response; the names of `headers` are in lower case."""
        self.status = status
        start: Message = {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(content)),
                (b"x-request-id", self.request_id.encode()),
                *headers,
            ],
            # `_bentoml.response_cycle` sends head and body together; other servers ignore this.
            "whole_body_follows": True,
        }
        await self.send(start)
        await self.send({"type": "http.response.body", "body": content})

    def raise_for_status(self) -> None:
        """Raise APIError for an error of BentoML's application, RuntimeError for 5xx except 503."""
        if self.error_start is None:
            return
        status = self.error_start["status"]
        allow = dict(self.error_start["headers"]).get(b"allow", b"GET, HEAD").decode()
        if status == 404:
            raise APIError(404, "Nothing is here; GET / describes the API")
        if status == 405:
            raise APIError(405, f"Use {allow} here", {"Allow": allow})
        if status == 503:
            raise APIError(503, "Not ready to answer; try again in a second", RETRY_AFTER)
        if status >= 500:
            raise RuntimeError(f"The application answered {status}")
        raise APIError(status, HTTPStatus(status).phrase)


def new_request_id() -> str:
    """Return a random 128-bit ID, unique across workers."""
    return f"{id_generator.getrandbits(128):032x}"
