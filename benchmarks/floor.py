"""The floor under every server here: uvicorn, and an answer that takes no prediction."""

from starlette.types import Receive, Scope, Send

ANSWER = b'{"prediction": 12.273424794987879}'


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Read a body and answer the same to all."""
    if scope["type"] == "lifespan":
        return
    while (await receive()).get("more_body"):
        pass
    length = (b"content-length", str(len(ANSWER)).encode())
    headers = [(b"content-type", b"application/json"), length]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})
