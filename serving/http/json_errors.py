"""Turn the error responses of middleware in front of `ServiceApp` into the JSON error format."""

from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import APIError
from serving.http.response import ResponseSender

PHRASES = {status.value: status.phrase for status in HTTPStatus}
MAX_MESSAGE_BYTES = 200


class JSONErrorMiddleware:
    """Middleware that replaces errors that are not JSON, such as for a CORS preflight, by JSON."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request and its response; send an error that is not JSON as JSON."""
        start: Message | None = None
        text = b""

        async def send_or_keep(message: Message) -> None:
            nonlocal start, text
            if message["type"] == "http.response.start" and is_error_without_json(message):
                start = message
            elif start is None:
                await send(message)
            else:
                text = (text + message.get("body", b""))[:MAX_MESSAGE_BYTES]

        await self.app(scope, receive, send_or_keep)
        if start:
            await send_as_json(scope, send, start, text)


def is_error_without_json(start: Message) -> bool:
    """Return whether a response is an error that is not JSON; those of `ServiceApp` are JSON."""
    media_type = dict(start["headers"]).get(b"content-type", b"").partition(b";")[0].lower()
    return start["status"] >= 400 and not media_type.endswith((b"/json", b"+json"))


async def send_as_json(
    scope: Scope, send: Send, original_start: Message, original_body: bytes
) -> None:
    """Send an error as JSON, with the status, the headers and the text of the original response."""
    status, headers = original_start["status"], dict(original_start["headers"])
    is_text = headers.get(b"content-type", b"").startswith(b"text/plain")
    if is_text and original_body and b"content-encoding" not in headers:
        message = original_body.decode(errors="replace")
    else:
        message = PHRASES.get(status, "Error")
    replaced = {b"content-type", b"content-length", b"content-encoding", b"x-request-id"}
    kept = [(name, value) for name, value in original_start["headers"] if name not in replaced]
    content = APIError(status, message).content
    await ResponseSender(scope, send).send_json(status, content, *kept)
