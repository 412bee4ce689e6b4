"""What is valid, found out without the service's own parsers: by json, and by h11."""

import json
import math
import re
from typing import Any
from urllib.parse import unquote

import h11

from house import House

PROPERTIES = House.model_json_schema()["properties"]
MAX_RECORDS = 1000
# llhttp takes several spaces behind the method, and our service a request without a Host, which h11
# does not; nobody reads another request there.
ONE_SPACE = re.compile(rb"(?<=^POST) +")
ENDS = (h11.NEED_DATA, h11.PAUSED, h11.ConnectionClosed)  # each is a class


def is_legal(body: bytes, path: str) -> bool:
    """Tell whether a body is a valid record, or an array of valid records."""
    try:
        text = body.decode()
        value = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError):
        return False
    if path == "/predict":
        return is_record(value)
    return isinstance(value, list) and 1 <= len(value) <= MAX_RECORDS and all(map(is_record, value))


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; raise ValueError if a name is given twice."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError("repeated")
    return dict(pairs)


def refuse(constant: str) -> None:
    """Raise ValueError, for NaN and Infinity are no JSON."""
    raise ValueError(constant)


def is_record(value: Any) -> bool:
    """Tell whether a value is a record: all features, no other, each within its bounds."""
    if not isinstance(value, dict) or value.keys() != PROPERTIES.keys():
        return False
    return all(is_legal_value(value[name], schema) for name, schema in PROPERTIES.items())


def is_legal_value(value: Any, schema: dict[str, Any]) -> bool:
    """Tell whether a value is a finite number that the schema allows."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        value = float(value)
    except OverflowError:
        return False
    if "enum" in schema:
        return value in schema["enum"]
    least, most = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    return math.isfinite(value) and least <= value <= most


def path_of(target: str) -> str:
    """Return the path of a request target, which may be a whole URL."""
    return unquote(re.sub("^https?://[^/]*", "", target).partition("?")[0])


def count_predictions(sent: bytes) -> int:
    """Return how many valid prediction requests h11 finds in what was sent."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    if b"\nhost:" not in sent.lower():
        sent = sent.replace(b"\n", b"\nHost: x\r\n", 1)
    connection.receive_data(ONE_SPACE.sub(b" ", sent, count=1))
    found, path, body = 0, "", b""
    try:
        while not isinstance(event := connection.next_event(), ENDS):
            if isinstance(event, h11.Request):
                path, body = path_of(event.target.decode()), b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                found += is_legal(body, path)
                connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                connection.start_next_cycle()
    except (h11.RemoteProtocolError, h11.LocalProtocolError):
        pass
    return found
