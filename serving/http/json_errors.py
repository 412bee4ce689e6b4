"""Give the errors of middleware in front of `ServiceApp` the one shape."""

from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import APIError
from serving.http.response import ResponseSender

PHRASES = {status.value: status.phrase for status in HTTPStatus}
MAX_TEXT = 200  # bytes of a plain text that becomes the message


class JSONErrors:
    """ASGI application that replaces error responses in plain text, such as a refused preflight."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request and its response, or send an error in place of one in plain text."""
        start: Message | None = None
        text = b""

        async def send_or_keep(message: Message) -> None:
            nonlocal start, text
            if message["type"] == "http.response.start" and is_plain_error(message):
                start = message
            elif start is None:
                await send(message)
            else:
                text = (text + message.get("body", b""))[:MAX_TEXT]

        await self.app(scope, receive, send_or_keep)
        if start:
            await send_as_json(scope, send, start, text)


def is_plain_error(start: Message) -> bool:
    """Tell whether a response is an error without JSON; `ServiceApp` sends JSON only."""
    media_type = dict(start["headers"]).get(b"content-type", b"").partition(b";")[0].lower()
    return start["status"] >= 400 and not media_type.endswith((b"/json", b"+json"))


async def send_as_json(scope: Scope, send: Send, start: Message, text: bytes) -> None:
    """Send a response with the status and headers of another one, and its text as the message."""
    headers = dict(start["headers"])
    is_plain = headers.get(b"content-type", b"").startswith(b"text/plain")
    if is_plain and text and b"content-encoding" not in headers:
        message = text.decode(errors="replace")
    else:
        message = PHRASES.get(start["status"], "Error")
    replaced = {b"content-type", b"content-length", b"content-encoding", b"x-request-id"}
    kept = [(name, value) for name, value in start["headers"] if name not in replaced]
    content = APIError(start["status"], message).content
    await ResponseSender(scope, send).send_json(start["status"], content, *kept)
