"""The baseline of the benchmark: uvicorn with a constant response instead of a prediction."""

from starlette.types import Receive, Scope, Send

RESPONSE = b'{"prediction": 12.273424794987879}'


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body and send the constant response."""
    if scope["type"] == "lifespan":
        return
    while (await receive()).get("more_body"):
        pass
    length = (b"content-length", str(len(RESPONSE)).encode())
    headers = [(b"content-type", b"application/json"), length]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": RESPONSE})
