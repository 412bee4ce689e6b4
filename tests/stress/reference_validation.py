"""Independent validation of bodies and requests, which shares no parser with the server.

It parses JSON with `json` and HTTP with h11. The fuzzer compares the server with it.
"""

import json
import math
import re
from typing import Any
from urllib.parse import unquote

import h11

from house import House

PROPERTIES = House.model_json_schema()["properties"]
MAX_RECORDS = 1000
# The server is more lenient than h11 in two harmless ways: llhttp accepts several spaces after the
# method, and the service accepts a request without Host. Neither makes another parser see a
# different request, so `count_valid_requests` normalizes both before it calls h11.
SPACES_AFTER_METHOD = re.compile(rb"(?<=^POST) +")
END_EVENTS = (h11.NEED_DATA, h11.PAUSED, h11.ConnectionClosed)  # all three are classes


def is_valid_body(body: bytes, path: str) -> bool:
    """Return whether a body is valid for a path: a record for `/predict`, otherwise an array."""
    try:
        text = body.decode("utf-8-sig")  # as the service, skip a byte order mark
        value = json.loads(
            text, object_pairs_hook=reject_duplicate_names, parse_constant=reject_constant
        )
    except (ValueError, RecursionError):
        return False
    if path == "/predict":
        return is_valid_record(value)
    return (
        isinstance(value, list)
        and 1 <= len(value) <= MAX_RECORDS
        and all(map(is_valid_record, value))
    )


def reject_duplicate_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs as a dict; raise ValueError if a name occurs twice."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError("duplicate name")
    return dict(pairs)


def reject_constant(constant: str) -> None:
    """Raise ValueError for NaN and Infinity, which Python's parser accepts and JSON forbids."""
    raise ValueError(constant)


def is_valid_record(value: Any) -> bool:
    """Return whether a value is an object with exactly the features, each valid."""
    if not isinstance(value, dict) or value.keys() != PROPERTIES.keys():
        return False
    return all(is_valid_feature(value[name], schema) for name, schema in PROPERTIES.items())


def is_valid_feature(value: Any, schema: dict[str, Any]) -> bool:
    """Return whether a value is a finite number that satisfies the feature's JSON schema."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        value = float(value)
    except OverflowError:
        return False
    if "enum" in schema:
        return value in schema["enum"]
    minimum, maximum = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    return math.isfinite(value) and minimum <= value <= maximum


def path_of(target: str) -> str:
    """Return the decoded path of a request target, which may be an absolute URL."""
    return unquote(re.sub("^https?://[^/]*", "", target).partition("?")[0])


def count_valid_requests(data: bytes) -> int:
    """Return the number of valid prediction requests that h11 finds in the bytes sent."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    if b"\nhost:" not in data.lower():
        data = data.replace(b"\n", b"\nHost: x\r\n", 1)
    connection.receive_data(SPACES_AFTER_METHOD.sub(b" ", data, count=1))
    count, path, body = 0, "", b""
    try:
        while not isinstance(event := connection.next_event(), END_EVENTS):
            if isinstance(event, h11.Request):
                path, body = path_of(event.target.decode()), b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                count += is_valid_body(body, path)
                connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                connection.start_next_cycle()
    except (h11.RemoteProtocolError, h11.LocalProtocolError):
        pass
    return count
